import { type ChildProcess, spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { commandShell, endProcessTree, ownTree } from '@openoz/machine'
import { AppError } from '@openoz/protocol'

/**
 * The one shell that all setup commands run in, so that what a command exports, or puts on the PATH, is there for the next.
 *
 * Commands come in through descriptor 3 as a line count and that many lines, and are evaluated with nothing on their stdin; each exit code
 * goes out through descriptor 4. So no file is needed, and a command that reads stdin gets its end instead of our next command. A shell that
 * ends before it answered was ended by the command (`exit`, `exec`, a syntax error in some shells).
 */
const driver = `
while IFS= read -r oz_lines <&3; do
  oz_command=; oz_line=
  while [ "$oz_lines" -gt 0 ]; do
    IFS= read -r oz_line <&3 || exit
    oz_command="$oz_command$oz_line
"
    oz_lines=$((oz_lines - 1))
  done
  cd "$OZ_SETUP_FOLDER" || exit
  eval "$oz_command" 3<&- 4>&- </dev/null
  echo $? >&4
done`

type SetupResult = { kind: 'exited'; exitCode: number } | { kind: 'shell_ended' } | { kind: 'timed_out' }

export interface SetupShell {
  /** Runs one command to its end, its time limit, or the end of the shell. Rejects with the signal's reason. */
  run(command: string, limits: { timeoutMs: number; signal: AbortSignal }): Promise<SetupResult>
  /** The environment that the commands have left; undefined when the shell cannot tell. */
  environment(signal: AbortSignal): Promise<NodeJS.ProcessEnv | undefined>
  /** Ends the shell. What it started in the background goes on, until the run's end. */
  close(): Promise<void>
}

interface SetupShellOptions {
  folder: string
  env: NodeJS.ProcessEnv
  onOutput: (bytes: Buffer) => void
}

/** Throws `shell_missing` or `setup_shell_missing` where there is none. */
export function startSetupShell({ folder, env, onOutput }: SetupShellOptions): SetupShell {
  const shell = commandShell({ env })
  // One line count and one loop in the shell's own language: PowerShell has another one.
  if (shell.kind === 'powershell') throw new AppError('setup_shell_missing')
  const child = spawn(shell.program, shell.args(driver), {
    cwd: folder,
    env: { ...env, CI: 'true', OZ_SETUP_FOLDER: folder },
    ...ownTree(),
    stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
  })
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve())
    child.once('error', () => resolve())
  })
  const commands = child.stdio[3] as Writable
  const answers = readLines(child.stdio[4] as Readable)
  // The shell may end while we write.
  commands.on('error', () => {})
  child.stdout?.on('data', onOutput)
  child.stderr?.on('data', onOutput)

  async function run(command: string, limits: { timeoutMs: number; signal: AbortSignal }): Promise<SetupResult> {
    const { timeoutMs, signal } = limits
    signal.throwIfAborted()
    const lines = command.split('\n')
    commands.write(`${lines.length}\n${lines.join('\n')}\n`)
    const stopped = Promise.withResolvers<'aborted' | 'timed_out'>()
    const timer = setTimeout(() => stopped.resolve('timed_out'), timeoutMs)
    const onAbort = () => stopped.resolve('aborted')
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      const answer = await Promise.race([answers.next(), stopped.promise, ended.then(() => undefined)])
      if (answer === 'aborted' || answer === 'timed_out') {
        await endTree(child)
        signal.throwIfAborted()
        return { kind: 'timed_out' }
      }
      // The last answer may have been written just before the end.
      const line = answer ?? answers.takeNow()
      await drained(child)
      return line === undefined ? { kind: 'shell_ended' } : { kind: 'exited', exitCode: Number(line) }
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
    }
  }

  return {
    run,
    async environment(signal) {
      const chunks: Buffer[] = []
      const listeners = child.stdout?.listeners('data') ?? []
      child.stdout?.removeAllListeners('data').on('data', (chunk: Buffer) => chunks.push(chunk))
      const marker = `oz-environment-${process.pid}`
      const result = await run(`echo ${marker}; env -0; echo ${marker}`, { timeoutMs: 10_000, signal })
      child.stdout?.removeAllListeners('data')
      for (const listener of listeners) child.stdout?.on('data', listener as (chunk: Buffer) => void)
      const text = Buffer.concat(chunks).toString('utf8')
      const [, block] = text.split(`${marker}\n`)
      if (result.kind !== 'exited' || result.exitCode !== 0 || block === undefined) return undefined
      return withoutOwn(parseEnvironment(block), env)
    },
    async close() {
      commands.end()
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1_000).unref())])
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
      for (const stream of child.stdio) stream?.destroy()
      await ended
    },
  }
}

async function endTree(child: ChildProcess): Promise<void> {
  if (child.pid !== undefined) await endProcessTree({ rootPid: child.pid }, 2_000)
}

/** Output that was written before the exit code may still be on its way through the pipe. */
async function drained(child: ChildProcess): Promise<void> {
  let size: number
  do {
    size = (child.stdout as Readable & { bytesRead?: number }).bytesRead ?? 0
    await new Promise((resolve) => setTimeout(resolve, 10))
  } while (((child.stdout as Readable & { bytesRead?: number }).bytesRead ?? 0) !== size)
}

function readLines(stream: Readable) {
  let rest = ''
  const lines: string[] = []
  let wake = () => {}
  stream.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop() ?? ''
    lines.push(...parts)
    wake()
  })
  stream.on('error', () => {})
  return {
    takeNow: () => lines.shift(),
    async next(): Promise<string> {
      while (lines.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      return lines.shift() as string
    },
  }
}

function parseEnvironment(block: string): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {}
  for (const entry of block.split('\0')) {
    const equals = entry.indexOf('=')
    if (equals > 0) env[entry.slice(0, equals)] = entry.slice(equals + 1)
  }
  return env
}

/** `CI` is set during the setup only, and the rest is the shell's own bookkeeping. */
function withoutOwn(env: NodeJS.ProcessEnv, before: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { OZ_SETUP_FOLDER: _folder, CI: _ci, PWD: _pwd, OLDPWD: _oldPwd, SHLVL: _level, _: _last, ...rest } = env
  return before.CI === undefined ? rest : { ...rest, CI: before.CI }
}
