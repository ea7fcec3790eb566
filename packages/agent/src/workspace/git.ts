import { spawn } from 'node:child_process'
import { hostname } from 'node:os'
import { endProcessTree, gitEnvironment, gitProgram, identifyProcess, isDiskFull, ownTree } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import { drainOutput, firstEnd, killedEnd } from '../child-end.ts'

/**
 * git as the agent itself uses it: with the variables of `gitEnvironment`, no terminal to open (a session of its own) and nothing on stdin, so
 * that it can never wait for a person.
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
const stopGraceMs = 2_000
/** What git itself answers when it dies. */
const killedCode = 128

export { gitEnvironment }

/** Hooks are for people at work: what we do beside them (a ref that comes and goes, a checkout of what was saved) is not their business. */
export function withoutHooks(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return withSetting(env, 'core.hooksPath', '/dev/null')
}

/** For one command and what it starts, above what the configuration says. */
export function withSetting(env: NodeJS.ProcessEnv, name: string, value: string): NodeJS.ProcessEnv {
  const count = Number(env.GIT_CONFIG_COUNT ?? 0) || 0
  return {
    ...env,
    GIT_CONFIG_COUNT: String(count + 1),
    [`GIT_CONFIG_KEY_${count}`]: name,
    [`GIT_CONFIG_VALUE_${count}`]: value,
  }
}

/**
 * Runs git. Rejects with `git_missing`, or with the signal's reason; every exit code is a result. Resolves when git itself has ended, whatever
 * it left running in the background; what has not ended in time is ended with everything that it started.
 */
export async function git(args: string[], options: GitOptions): Promise<GitResult> {
  const { cwd, signal, timeoutMs, onMessage, input } = options
  signal?.throwIfAborted()
  const found = gitProgram(options.env)
  if (!found) throw gitMissing()
  const { program, env } = found
  // A file system monitor is a program of the repository's choice that only saves time, and its daemon outlives the command.
  const child = spawn(program, ['-c', 'core.fsmonitor=false', ...args], {
    cwd,
    env,
    ...ownTree(),
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  // Known from the start: a process that has ended cannot be identified any more, but what it started can be found through it.
  const root = child.pid === undefined ? undefined : identifyProcess(child.pid)
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
  const exited = new Promise<number>((resolve, reject) => {
    child.once('error', (error) => reject(startFailure(error)))
    child.once('exit', (code) => resolve(code ?? killedCode))
  })
  const end = await firstEnd(exited, { timeoutMs, signal })
  let exitCode = end
  if (typeof exitCode !== 'number') {
    if (root) await endProcessTree({ root }, stopGraceMs)
    exitCode = (await killedEnd(exited)) ?? killedCode
  }
  if (!(await drainOutput([child.stdout, child.stderr]))) child.unref()
  signal?.throwIfAborted()
  return { exitCode, stdout: Buffer.concat(stdout).toString('utf8'), stderr, hasTimedOut: end === 'timed_out' }
}

/** The answer of a git that must succeed, without the last line break. Rejects with what git said. */
export async function gitAnswer(args: string[], options: GitOptions): Promise<string> {
  const result = await git(args, options)
  if (result.exitCode !== 0 || result.hasTimedOut) throw gitFailure(args, result, options)
  return result.stdout.replace(/\n$/, '')
}

/** The answer of a git that may say no: undefined for every exit code but 0. Rejects when it had no time to say anything. */
export async function gitQuestion(args: string[], options: GitOptions): Promise<string | undefined> {
  const result = await git(args, options)
  if (result.hasTimedOut) throw gitFailure(args, result, options)
  const { exitCode, stdout } = result
  return exitCode === 0 ? stdout.replace(/\n$/, '') : undefined
}

export class GitFailure extends Error {
  readonly stderr: string
  readonly hasTimedOut: boolean
  constructor(message: string, { stderr, hasTimedOut }: Pick<GitResult, 'stderr' | 'hasTimedOut'>) {
    super(message)
    this.name = 'GitFailure'
    this.stderr = stderr
    this.hasTimedOut = hasTimedOut
  }
}

export function gitFailure(
  args: readonly string[],
  { exitCode, stderr, hasTimedOut }: GitResult,
  { timeoutMs }: GitOptions,
): GitFailure {
  const said = stderr.trim().slice(-500)
  const command = args.find((arg, i) => !arg.startsWith('-') && args[i - 1] !== '-c') ?? ''
  const how = hasTimedOut
    ? `was still running after ${timeoutMs} ms and was ended; a filter or another program that it runs may hang`
    : `ended with exit code ${exitCode}`
  return new GitFailure(`git ${command} ${how}${said === '' ? '' : `: ${said}`}`, { stderr, hasTimedOut })
}

function startFailure(error: Error): Error {
  const isMissing = 'code' in error && error.code === 'ENOENT'
  return isMissing ? gitMissing({ cause: error }) : error
}

/** `tried`: what else was done to get one. */
export function gitMissing({ tried = '', cause }: { tried?: string; cause?: unknown } = {}): AppError {
  return new AppError('git_missing', { host: hostname(), tried }, { cause })
}

/** Whether it failed because there is no room, for git or for us. */
export function saysNoSpace(error: unknown): boolean {
  return isDiskFull(error) || (error instanceof GitFailure && isNoSpace(error.stderr))
}

/** The same of what git said. It has words of its own for a write that stopped half-way ("Out of diskspace"), without the system's. */
export function isNoSpace(stderr: string): boolean {
  return /No space left on device|Disk quota exceeded|Out of diskspace/i.test(stderr)
}
