import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { homedir } from 'node:os'
import { cloneProblem, endProcessTree, gitEnvironment, identifyProcess } from '@openoz/machine'

/**
 * git as the worker itself runs it: only to mirror repositories, with the logins of the worker's user (its credential helper, its ssh keys or
 * agent), and without anybody to ask. What it says is cut down to a sentence before anybody sees it: an operator's settings may put a
 * password into an address.
 */
interface MirrorGitOptions {
  cwd: string
  env: NodeJS.ProcessEnv
  signal: AbortSignal
  timeoutMs: number
}

export class MirrorFailure extends Error {
  /** The mirror itself is at fault, not its host. */
  readonly isBroken: boolean

  constructor(stderr: string, { hasTimedOut = false } = {}) {
    super(cloneProblem(stderr.replaceAll(/\/\/[^/@\s]+@/g, '//'), { hasTimedOut }))
    this.isBroken =
      !hasTimedOut &&
      /\.lock|bad object|corrupt|not a git repository|loose object|packfile|index-pack|mismatched algorithms|cannot lock ref/i.test(
        stderr,
      )
  }
}

const keptBytes = 64 * 1024
/** Nothing in a mirror happens by itself: no housekeeping, no hooks, and everything that is fetched becomes a pack. */
const settings = ['gc.auto=0', 'maintenance.auto=false', 'core.hooksPath=/dev/null', 'core.fsmonitor=false']
const packing = ['fetch.unpackLimit=1', 'transfer.unpackLimit=1']

/** Answers stdout. Rejects with a MirrorFailure, with Node's error where there is no git, or with the signal's reason. */
export async function mirrorGit(args: string[], { cwd, env, signal, timeoutMs }: MirrorGitOptions): Promise<string> {
  signal.throwIfAborted()
  const given = [...settings, ...packing].flatMap((setting) => ['-c', setting])
  // In a session of its own there is no terminal to ask at.
  const child = spawn('git', [...given, ...args], { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  const root = child.pid === undefined ? undefined : identifyProcess(child.pid)
  const texts = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      texts[name] = (texts[name] + text).slice(-keptBytes)
    })
  }
  const patience = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
  const end = () => {
    if (root) void endProcessTree({ root }, 1_000)
  }
  patience.addEventListener('abort', end, { once: true })
  try {
    const [code] = (await once(child, 'close')) as [number | null]
    signal.throwIfAborted()
    if (code !== 0) throw new MirrorFailure(texts.stderr, { hasTimedOut: patience.aborted })
    return texts.stdout
  } finally {
    patience.removeEventListener('abort', end)
  }
}

/** What would lead git elsewhere than to the mirror, or put what it sends (logins, too) into its output. */
const misleading =
  /^GIT_(DIR|WORK_TREE|INDEX_FILE|COMMON_DIR|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|NAMESPACE|TRACE.*|CURL_VERBOSE|TEMPLATE_DIR)$/

/** The worker's own environment, as git needs it. */
export function mirrorEnvironment(env: NodeJS.ProcessEnv, authorities: string | undefined): NodeJS.ProcessEnv {
  const own = Object.entries(env).filter(([name]) => !misleading.test(name) && !/^(OZ|WARP)_API_KEY$/.test(name))
  return {
    HOME: homedir(),
    ...(authorities === undefined ? {} : { GIT_SSL_CAINFO: authorities }),
    ...gitEnvironment(Object.fromEntries(own)),
    GIT_DEFAULT_REF_FORMAT: 'files',
  }
}

/** Nothing on this machine's own disk, and nothing that runs a program, whatever address an operator's settings put in the place of another. */
export function overTheNetwork(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...env, GIT_ALLOW_PROTOCOL: 'https:http:ssh:git' }
}
