import { readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { AppError, parseDuration } from '@openoz/protocol'
import { availableBackendNames, type BackendName, backendNames, plannedBackendNames } from './backends/backend.ts'
import type { EnvironmentEntry } from './config-entries.ts'
import { type ConfigFile, parseConfigFile } from './config-file.ts'
import { readDockerOptions } from './docker-options.ts'
import { defaultServerUrl, logLevels, type WorkerFlagValues } from './worker-flags.ts'
import { type DrainMode, drainModes, type WorkerOptions } from './worker-options.ts'

export interface WorkerConfigSources {
  flags: WorkerFlagValues
  env: NodeJS.ProcessEnv
  /** The CLI's saved login, asked last for address and key. */
  login?: { serverUrl?: string; apiKey?: string }
  /** For tests; reads UTF-8 and throws Node's errors. */
  readFile?: (path: string) => string
  platform?: NodeJS.Platform
}

/**
 * Flag, then environment variable, then config file, then saved login, then default. Throws AppErrors in words for the operator: `usage`,
 * `option_invalid`, `config_file_invalid`, `backend_not_available`, `not_logged_in`, `target_dir_invalid`, `volume_spec_invalid`.
 */
export function readWorkerConfig(sources: WorkerConfigSources): WorkerOptions {
  const { flags, env, login = {}, readFile = (path) => readFileSync(path, 'utf8') } = sources
  const file = flags.configFile === undefined ? {} : readConfigFile(flags.configFile, readFile)
  const direct = file.backend?.direct ?? {}
  const docker = file.backend?.docker ?? {}

  const backend = chooseBackend(flags, file)
  checkPlatform(backend, sources.platform)
  refuseForeignFlags(backend, flags)
  const workerId = checkWorkerId(flags.workerId ?? file.worker_id)
  const rootUrl = given(flags.serverRootUrl)
  const serverUrl =
    given(flags.serverUrl) ??
    rootUrl ??
    given(env.OZ_SERVER_URL) ??
    given(env.WARP_SERVER_ROOT_URL) ??
    given(login.serverUrl) ??
    defaultServerUrl
  const apiKey = given(flags.apiKey) ?? given(env.OZ_API_KEY) ?? given(env.WARP_API_KEY) ?? given(login.apiKey)
  if (apiKey === undefined) throw new AppError('not_logged_in')
  if (/\s/.test(apiKey)) throw optionInvalid('--api-key', 'it must not contain whitespace')

  return {
    workerId,
    apiKey,
    serverUrl,
    webSocketUrl: checkSocketUrl(given(flags.webSocketUrl)),
    serverRootUrl: rootUrl ?? serverUrl,
    sessionSharingServerUrl: given(flags.sessionSharingServerUrl),
    backend,
    ...(backend === 'docker' ? { docker: readDockerOptions(docker, flags) } : {}),
    direct: {
      workspaceRoot: absolute(direct.workspace_root),
      stateDir: absolute(direct.state_dir),
      targetDir: checkTargetDir(flags.targetDir ?? direct.target_dir),
      ozPath: absolute(direct.oz_path),
      setupCommand: direct.setup_command,
      teardownCommand: direct.teardown_command,
      hiddenPaths: direct.hidden_paths?.map((path) => resolve(path)),
      readablePaths: direct.readable_paths?.map((path) => resolve(path)),
    },
    logLevel: checkLogLevel(flags.logLevel),
    cleanup: flags.cleanup === false ? false : (file.cleanup ?? true),
    maxConcurrentTasks: flags.oneShot ? 1 : (checkLimit(flags.maxConcurrentTasks) ?? file.max_concurrent_tasks ?? 0),
    idleOnComplete: checkIdle(flags.idleOnComplete) ?? file.idle_on_complete?.trim(),
    oneShot: flags.oneShot ?? false,
    drain: checkDrain(flags.drain) ?? file.drain ?? (flags.oneShot ? 'wait' : 'leave'),
    taskEnvironment: mergeEnvironment({ direct, docker }[backend].environment ?? [], flags.env ?? [], env),
    env,
  }
}

function readConfigFile(path: string, readFile: (path: string) => string): ConfigFile {
  let content: string
  try {
    content = readFile(path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'it cannot be read'
    throw new AppError('config_file_invalid', { file: path, problem: code === 'ENOENT' ? 'it does not exist' : code })
  }
  return parseConfigFile(content, path)
}

/** Without a word from anybody the reference means docker, and so do we: a missing isolation must be chosen, never slipped into. */
function chooseBackend(flags: WorkerFlagValues, file: ConfigFile): BackendName {
  const name = given(flags.backend) ?? Object.keys(file.backend ?? {})[0] ?? 'docker'
  const available = availableBackendNames.find((backend) => backend === name)
  if (available) return available
  if ([...backendNames, ...plannedBackendNames].some((backend) => backend === name)) {
    throw new AppError('backend_not_available', { backend: name })
  }
  throw optionInvalid('--backend', `${name} is none of docker, direct, kubernetes, command`)
}

/** Agents of the direct backend are processes below a shim for `sh`, in sessions of their own, and are ended by their process groups. */
function checkPlatform(backend: BackendName, platform = process.platform): void {
  if (backend === 'direct' && platform === 'win32')
    throw optionInvalid('--backend direct', 'it needs Linux or macOS; on Windows start the worker in WSL')
}

/** What has no meaning on this backend is a misunderstanding, and no wish to be dropped. */
function refuseForeignFlags(backend: BackendName, { volumes = [], targetDir }: WorkerFlagValues): void {
  if (backend === 'direct' && volumes.length > 0)
    throw optionInvalid(
      '--volumes',
      'tasks of the direct backend see this machine’s files; it is for the docker backend',
    )
  if (backend === 'docker' && targetDir !== undefined)
    throw optionInvalid('--target-dir', 'it is for the direct backend; give containers a folder with --volumes')
}

function checkWorkerId(id: string | undefined): string {
  if (id === undefined || id === '') {
    throw new AppError('usage', { problem: 'A worker id is required: --worker-id, or worker_id in the config file.' })
  }
  if (/\s/.test(id)) throw optionInvalid('--worker-id', 'it must not contain whitespace')
  if (id.length > 255) throw optionInvalid('--worker-id', 'it must not be longer than 255 characters')
  if (id.startsWith('warp')) throw new AppError('worker_id_reserved', { workerId: id })
  return id
}

function checkSocketUrl(url: string | undefined): string | undefined {
  if (url === undefined) return undefined
  if (!URL.canParse(url) || !/^(ws|http)s?:$/.test(new URL(url).protocol)) {
    throw optionInvalid('--web-socket-url', 'it must begin with ws:// or wss://')
  }
  return url
}

function checkTargetDir(folder: string | undefined): string | undefined {
  if (folder === undefined) return undefined
  const path = resolve(folder)
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw new AppError('target_dir_invalid', { folder: path })
  }
  return path
}

function checkLogLevel(level: string | undefined): string {
  if (level === undefined) return 'info'
  if (logLevels.some((known) => known === level)) return level
  throw optionInvalid('--log-level', `${level} is none of ${logLevels.join(', ')}`)
}

function checkDrain(mode: string | undefined): DrainMode | undefined {
  const known = drainModes.find((candidate) => candidate === mode)
  if (mode === undefined || known) return known
  throw optionInvalid('--drain', `${mode} is none of ${drainModes.join(', ')}`)
}

function checkLimit(limit: string | number | undefined): number | undefined {
  if (limit === undefined) return undefined
  const text = String(limit).trim()
  if (!/^\d{1,6}$/.test(text))
    throw optionInvalid('--max-concurrent-tasks', 'it must be 0 (no limit) or a whole number')
  return Number(text)
}

function checkIdle(duration: string | undefined): string | undefined {
  if (duration === undefined || duration === '') return undefined
  if (parseDuration(duration) === undefined)
    throw optionInvalid('--idle-on-complete', 'it must be a duration such as 45m, 1h 30m or 0s')
  return duration.trim()
}

/** A name without a value means the worker's own; where the worker has none, the task gets none (as `docker run -e` does). */
function mergeEnvironment(
  entries: EnvironmentEntry[],
  flags: string[],
  env: NodeJS.ProcessEnv,
): Record<string, string> {
  const fromFlags = flags.map((flag) => {
    const at = flag.indexOf('=')
    const name = at < 0 ? flag : flag.slice(0, at)
    // The value may be a secret, so only the name is ever quoted.
    if (name === '') throw optionInvalid('--env', 'the name before = is required')
    if (/\s/.test(name)) throw optionInvalid('--env', `the name ${JSON.stringify(name)} must not contain whitespace`)
    return { name, value: at < 0 ? undefined : flag.slice(at + 1) }
  })
  const merged: Record<string, string> = {}
  for (const { name, value = env[name] } of [...entries, ...fromFlags]) if (value !== undefined) merged[name] = value
  return merged
}

function given(text: string | undefined): string | undefined {
  return text === undefined || text.trim() === '' ? undefined : text.trim()
}

function absolute(path: string | undefined): string | undefined {
  return path === undefined ? undefined : resolve(path)
}

function optionInvalid(option: string, problem: string): AppError {
  return new AppError('option_invalid', { option, problem })
}
