import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rm, rmdir, writeFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { nodeCommand, userFolders, writePrivateFile } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import { type WorkerFlagValues, type WorkerOptions, workerFlags } from '@openoz/worker'
import { workerProgram } from '../program-files.ts'
import { environmentFileText, unitText, wantedBy } from './service-unit.ts'

/**
 * `oz-agent-worker install` and `uninstall`: a systemd service that keeps one worker of this machine (or, with `--user`, of this user)
 * running. Two files: the unit, which everybody may read, and an environment file of mode 0600 with the key and whatever else may be secret.
 *
 * Where systemd runs it is told at once; elsewhere (an image that is being built) the commands for it are printed.
 */
export interface ServiceFlags {
  user?: boolean
  print?: boolean
}

interface ServiceContext {
  flags: ServiceFlags
  env: NodeJS.ProcessEnv
  say: (line: string) => void
  platform?: NodeJS.Platform
  /** The words that start the worker. Default: those of this very program. */
  program?: string[]
}

const run = promisify(execFile)
const serviceName = 'oz-agent-worker.service'
const answerMs = 10_000

export async function installService(
  worker: { flags: WorkerFlagValues; config: WorkerOptions },
  { flags, env, say, platform = process.platform, program }: ServiceContext,
): Promise<void> {
  if (platform !== 'linux' && !flags.print) {
    const problem = 'this system has no systemd; let its own supervisor start `oz-agent-worker` again whenever it ends'
    throw new AppError('option_invalid', { option: 'install', problem })
  }
  const files = serviceFiles(flags, env)
  const secrets = serviceEnvironment(worker, env)
  const unit = unitText({
    workerId: worker.config.workerId,
    command: [...(program ?? [...nodeCommand(), workerProgram]), ...serviceArguments(worker)],
    path: servicePath(worker.config, env),
    environmentFile: files.environment,
    isUsers: flags.user === true,
  })
  if (flags.print) {
    const names = Object.keys(secrets).map((name) => `${name}=…`)
    say(`# ${files.unit}\n${unit}\n# ${files.environment} (mode 0600)\n${names.join('\n')}`)
    return
  }
  await place(files.environment, () => writePrivateFile(files.environment, environmentFileText(secrets)))
  await place(files.unit, async () => {
    await mkdir(dirname(files.unit), { recursive: true })
    await writeFile(files.unit, unit, { mode: 0o644 })
  })
  say(`Wrote ${files.unit} and ${files.environment}.`)
  await tellSystemd([['daemon-reload'], ['enable', serviceName], ['restart', serviceName]], { flags, env, say })
  if (flags.user && !existsSync(join('/var/lib/systemd/linger', userInfo().username)))
    say('It ends with your last session here, and its agents with it. To keep it: loginctl enable-linger')
}

export async function uninstallService({ flags, env, say }: ServiceContext): Promise<void> {
  const files = serviceFiles(flags, env)
  if (!existsSync(files.unit) && !existsSync(files.environment)) {
    say(`There is no ${files.unit}.`)
    return
  }
  if (existsSync(files.unit)) await tellSystemd([['disable', '--now', serviceName]], { flags, env, say })
  for (const file of [files.unit, files.environment]) await place(file, () => rm(file, { force: true }))
  say(`Removed ${files.unit} and ${files.environment}.`)
  await tellSystemd([['daemon-reload']], { flags, env, say })
}

/** Where both files of a service are. */
export function serviceFiles({ user }: ServiceFlags, env: NodeJS.ProcessEnv): { unit: string; environment: string } {
  const name = 'oz-agent-worker.env'
  if (!user) return { unit: `/etc/systemd/system/${serviceName}`, environment: `/etc/openoz/${name}` }
  const { config } = userFolders(env)
  return { unit: join(dirname(config), 'systemd', 'user', serviceName), environment: join(config, name) }
}

/** The flags as they were given, but nothing that may be secret, and with absolute paths: a service starts in `/`. */
export function serviceArguments({ flags, config }: { flags: WorkerFlagValues; config: WorkerOptions }): string[] {
  const given: WorkerFlagValues = { ...flags, workerId: config.workerId, backend: config.backend, apiKey: undefined }
  // A saved login is not the service's.
  if (given.serverRootUrl === undefined) given.serverUrl = config.serverUrl
  // To stop a service is to end what it does; a restart leaves its tasks to the next process by another signal.
  given.drain ??= 'stop'
  return workerFlags.flatMap(({ name, flag, type }) => {
    const value = given[name]
    const [word = ''] = flag.split(', ').at(-1)?.split(' ') ?? []
    if (type === 'boolean') return value === !word.startsWith('--no-') ? [word] : []
    if (value === undefined) return []
    if (Array.isArray(value))
      return value.flatMap((entry) => [word, name === 'env' ? (entry.split('=')[0] ?? '') : entry])
    return [word, type === 'path' ? resolve(String(value)) : String(value)]
  })
}

/** What a worker needs to reach the control plane from this network, and where it reports to. Proxies may carry a password. */
const inherited = [
  /^(https?|no|all)_proxy$/i,
  /^(OZ_CA_FILE|NODE_EXTRA_CA_CERTS)$/,
  /^OTEL_/,
  /^DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS_VERIFY|API_VERSION)$/,
]

export function serviceEnvironment(
  { flags, config }: { flags: WorkerFlagValues; config: WorkerOptions },
  env: NodeJS.ProcessEnv,
): Record<string, string> {
  const network = Object.entries(env)
    .filter(([name, value]) => value !== '' && inherited.some((pattern) => pattern.test(name)))
    .map(([name, value = '']): [string, string] => [
      name,
      /^(OZ_CA_FILE|NODE_EXTRA)/.test(name) ? resolve(value) : value,
    ])
  // `-e NAME=VALUE`: the name is in the command line, and takes its value from here.
  const forTasks = (flags.env ?? []).map((entry) => entry.split('=')[0] ?? '')
  const values = [
    ...network,
    ...forTasks.map((name): [string, string | undefined] => [name, config.taskEnvironment[name]]),
    ['OZ_API_KEY', config.apiKey] as const,
  ]
  const present = values.flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]))
  return Object.fromEntries(present)
}

/** The service finds `oz` where whoever installs it does, or beside this program. */
export function servicePath({ direct }: WorkerOptions, env: NodeJS.ProcessEnv): string {
  const folders = (env.PATH ?? '').split(delimiter).filter((folder) => folder.startsWith('/'))
  const beside = dirname(process.argv[1] ?? workerProgram)
  const folder = [...folders, beside].find((candidate) => existsSync(join(candidate, 'oz')))
  if (folder === undefined && direct.ozPath === undefined) {
    throw new AppError('oz_missing', { path: '`oz`', problem: 'is not on the PATH' })
  }
  return [...new Set(folder === undefined ? folders : [...folders, folder])].join(delimiter)
}

/** `start`, `stop` or `restart`, where systemd runs. */
export async function changeService(verb: 'start' | 'stop' | 'restart', context: ServiceContext): Promise<void> {
  await tellSystemd([[verb, serviceName]], context)
}

export function systemdRuns({ user }: ServiceFlags, env: NodeJS.ProcessEnv): boolean {
  return existsSync('/run/systemd/system') && (!user || Boolean(env.XDG_RUNTIME_DIR))
}

/**
 * The variables with which systemd answers, the user's own or the machine's; undefined where it does not. A folder and a variable alone say little: who
 * became another user (`su`, `sudo -u`, cron) has no variable, or somebody else's, and a container may have the folder and no systemd.
 */
export async function reachSystemd(
  { user }: ServiceFlags,
  env: NodeJS.ProcessEnv,
): Promise<NodeJS.ProcessEnv | undefined> {
  if (!existsSync('/run/systemd/system')) return undefined
  const runtimeFolders = user ? [env.XDG_RUNTIME_DIR, `/run/user/${process.getuid?.()}`] : [env.XDG_RUNTIME_DIR]
  for (const folder of new Set(runtimeFolders)) {
    if (user && (!folder || !existsSync(folder))) continue
    const candidate = { ...env, XDG_RUNTIME_DIR: folder }
    const scope = user ? ['--user'] : []
    const answers = run('systemctl', [...scope, 'show-environment'], { env: candidate, timeout: answerMs })
    const isThere = await answers.then(
      () => true,
      () => false,
    )
    if (isThere) return candidate
  }
  return undefined
}

/** Without systemd, which is away or has been asked in vain: both files, and the link by which it would start the service. */
export async function removeServiceFiles(flags: ServiceFlags, env: NodeJS.ProcessEnv): Promise<void> {
  const { unit, environment } = serviceFiles(flags, env)
  const wants = join(dirname(unit), `${wantedBy(flags.user === true)}.wants`, serviceName)
  for (const file of [wants, unit, environment]) await place(file, () => rm(file, { force: true }))
  // As systemd does, which would have removed the link.
  await rmdir(dirname(wants)).catch(() => {})
}

async function tellSystemd(commands: string[][], { flags, env, say }: ServiceContext): Promise<void> {
  const scope = flags.user ? ['--user'] : []
  if (!systemdRuns(flags, env)) {
    for (const command of commands)
      say(`systemd does not run here. Later: systemctl ${[...scope, ...command].join(' ')}`)
    return
  }
  for (const command of commands) {
    const words = ['systemctl', ...scope, ...command].join(' ')
    await place(`\`${words}\``, () => run('systemctl', [...scope, ...command], { env }))
    say(words)
  }
}

async function place(path: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message.trim().replace(/\.$/, '') : 'unknown error'
    throw new AppError('service_install_failed', { path, problem }, { cause })
  }
}
