import { existsSync } from 'node:fs'
import { type AgentPlatform, AppError, messageOf } from '@openoz/protocol'
import { checkEngine, findBundle, findEngine, openEngine } from '@openoz/worker'
import { createLogger } from '../log.ts'
import type { Finding } from './finding.ts'

/**
 * What a worker of the docker backend here would find: an engine, and the bundle that containers run their agent from. Neither is missed by a machine
 * that has none and was told of none: its workers run tasks as processes.
 */
export async function checkContainers(env: NodeJS.ProcessEnv, socket?: string): Promise<Finding[]> {
  const engine = await examineEngine(env, socket)
  return [engine.finding, await checkBundle(env, engine)]
}

interface EngineFinding {
  finding: Finding
  /** undefined: there is none, or it does not say. */
  platform?: AgentPlatform
  isThere: boolean
}

async function examineEngine(env: NodeJS.ProcessEnv, socket: string | undefined): Promise<EngineFinding> {
  const check = 'container engine'
  try {
    const address = findEngine(env, { socket })
    const { display, source } = address
    const isNamed = Boolean(env.DOCKER_HOST || env.DOCKER_CONTEXT) || source.startsWith('context ')
    if (!isNamed && address.kind === 'unix' && !existsSync(address.socketPath)) {
      const text = 'none; workers with --backend direct need none'
      return { finding: { check, level: 'ok', text }, isThere: false }
    }
    const log = createLogger({ name: 'engine', level: 'error', env })
    await using engine = openEngine(address, { env, log })
    const { version, platform, isRootless } = await checkEngine(engine)
    const text = `Docker ${version}, ${platform}${isRootless ? ', rootless' : ''}, at ${display} (${source})`
    return { finding: { check, level: 'ok', text }, platform, isThere: true }
  } catch (error) {
    return { finding: failed(check, error), isThere: true }
  }
}

async function checkBundle(
  env: NodeJS.ProcessEnv,
  { isThere, platform = ownPlatform() }: EngineFinding,
): Promise<Finding> {
  const check = 'agent bundle'
  if (platform === undefined) return { check, level: 'ok', text: 'not needed on this CPU' }
  try {
    const { folder, manifest } = await findBundle({ platform, env })
    const { hash, node, git } = manifest
    const parts = [`for ${platform}`, `node ${node}`, git === undefined ? 'no git' : `git ${git}`, hash.slice(0, 12)]
    return { check, level: 'ok', text: `${folder}: ${parts.join(', ')}` }
  } catch (error) {
    const isMissing = error instanceof AppError && error.code === 'agent_bundle_missing'
    if (isMissing && !isThere) return { check, level: 'ok', text: 'none; only containers need it' }
    return failed(check, error)
  }
}

/** Not `fail`: a worker of the direct backend works all the same. */
function failed(check: string, error: unknown): Finding {
  if (!(error instanceof AppError)) return { check, level: 'warn', text: messageOf(error) }
  // Its sentence ends with what to do, which has a line of its own here.
  const remedy = error.spec.remedy.replace(/\{(\w+)\}/g, (_, name: string) => String(error.details[name] ?? ''))
  const what = error.message.endsWith(remedy) ? error.message.slice(0, -remedy.length).trimEnd() : error.message
  return { check, level: 'warn', text: `${what} [${error.code}]`, remedy }
}

function ownPlatform(): AgentPlatform | undefined {
  if (process.arch === 'x64') return 'linux/amd64'
  return process.arch === 'arm64' ? 'linux/arm64' : undefined
}
