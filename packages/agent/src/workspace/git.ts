import { spawn } from 'node:child_process'
import { hostname } from 'node:os'
import { endProcessTree } from '@openoz/machine'
import { AppError } from '@openoz/protocol'

/**
 * git as the agent itself uses it: it can never wait for a person. Prompts of git, of its credential helpers and of ssh are off, there is no
 * terminal to open (a session of its own) and nothing on stdin; a transfer that has stalled for a minute is given up.
 */
export interface GitOptions {
  cwd: string
  env: NodeJS.ProcessEnv
  signal?: AbortSignal
  timeoutMs?: number
  /** What git says on stderr, as it comes. */
  onMessage?: (text: string) => void
  /** Fed to stdin. */
  input?: string
}

interface GitResult {
  exitCode: number
  stdout: string
  /** Its last 64 KiB. */
  stderr: string
  hasTimedOut: boolean
}

const keptErrorBytes = 64 * 1024
/** Far above every answer that we read: lists of changed files, statistics. Diffs and bundles go to files. */
const maxAnswerBytes = 64 * 1024 * 1024

/** Variables for git run by us. `env` is what the task's processes inherit. */
export function gitEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const ssh = env.GIT_SSH_COMMAND ?? 'ssh'
  return {
    ...env,
    GIT_TERMINAL_PROMPT: '0',
    GIT_ASKPASS: 'false',
    SSH_ASKPASS: 'false',
    SSH_ASKPASS_REQUIRE: 'never',
    GCM_INTERACTIVE: 'never',
    GIT_SSH_COMMAND: `${ssh} -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4`,
    GIT_HTTP_LOW_SPEED_LIMIT: '1',
    GIT_HTTP_LOW_SPEED_TIME: '60',
    GIT_OPTIONAL_LOCKS: '0',
    GIT_PAGER: 'cat',
    GIT_EDITOR: 'false',
    // Failures are told apart by their words.
    LC_ALL: 'C',
    LANGUAGE: '',
  }
}

/** Runs git. Rejects with `git_missing`, or with the signal's reason; every exit code is a result. */
export async function git(args: string[], options: GitOptions): Promise<GitResult> {
  const { cwd, env, signal, timeoutMs, onMessage, input } = options
  signal?.throwIfAborted()
  const child = spawn('git', args, { cwd, env, detached: true, stdio: ['pipe', 'pipe', 'pipe'] })
  let hasTimedOut = false
  const stop = () => {
    if (child.pid !== undefined) void endProcessTree({ rootPid: child.pid }, 2_000)
  }
  const timer = setTimeout(
    () => {
      hasTimedOut = true
      stop()
    },
    timeoutMs ?? 2 ** 31 - 1,
  )
  signal?.addEventListener('abort', stop, { once: true })
  try {
    // git may end before it has read everything, or anything.
    child.stdin.on('error', () => {})
    child.stdin.end(input ?? '')
    const stdout: Buffer[] = []
    let size = 0
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size <= maxAnswerBytes) stdout.push(chunk)
    })
    let stderr = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-keptErrorBytes)
      onMessage?.(text)
    })
    const exitCode = await new Promise<number>((resolve, reject) => {
      child.once('error', (error) => reject(startFailure(error)))
      child.once('close', (code) => resolve(code ?? 128))
    })
    signal?.throwIfAborted()
    return { exitCode, stdout: Buffer.concat(stdout).toString('utf8'), stderr, hasTimedOut }
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', stop)
  }
}

/** The answer of a git that must succeed, without the last line break. Rejects with what git said. */
export async function gitAnswer(args: string[], options: GitOptions): Promise<string> {
  const { exitCode, stdout, stderr } = await git(args, options)
  if (exitCode !== 0) throw new GitFailure(args[0] ?? 'git', exitCode, stderr)
  return stdout.replace(/\n$/, '')
}

/** The answer of a git that may say no: undefined for every exit code but 0. */
export async function gitQuestion(args: string[], options: GitOptions): Promise<string | undefined> {
  const { exitCode, stdout } = await git(args, options)
  return exitCode === 0 ? stdout.replace(/\n$/, '') : undefined
}

export class GitFailure extends Error {
  readonly stderr: string
  constructor(command: string, exitCode: number, stderr: string) {
    super(`git ${command} ended with exit code ${exitCode}: ${stderr.trim().slice(-500)}`)
    this.name = 'GitFailure'
    this.stderr = stderr
  }
}

function startFailure(error: Error): Error {
  const isMissing = 'code' in error && error.code === 'ENOENT'
  return isMissing ? new AppError('git_missing', { host: hostname() }, { cause: error }) : error
}
