import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ozProgram } from '../program-files.ts'

/** A home of its own, so that no test finds the login of who runs it, and none leaves something behind. */
export interface TestHome extends AsyncDisposable {
  folder: string
  env: NodeJS.ProcessEnv
}

export async function makeTestHome(): Promise<TestHome> {
  const folder = await mkdtemp(join(tmpdir(), 'oz-cli-test-'))
  // As root the database runs as another user, who has to be able to pass through.
  await chmod(folder, 0o711)
  const { PATH, TMPDIR } = process.env
  const env = {
    PATH,
    TMPDIR,
    HOME: join(folder, 'home'),
    XDG_CONFIG_HOME: join(folder, 'config'),
    XDG_STATE_HOME: join(folder, 'state'),
    OZ_DATA_DIR: join(folder, 'data'),
  }
  return { folder, env, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true, maxRetries: 5 }) }
}

export interface ProgramEnd {
  exitCode: number | null
  stdout: string
  stderr: string
}

/** Runs `oz` to its end. */
export async function runOz(args: string[], env: NodeJS.ProcessEnv, input = ''): Promise<ProgramEnd> {
  const program = startOz(args, env)
  program.child.stdin?.end(input)
  return program.ended
}

export interface RunningProgram {
  child: ChildProcess
  /** So far. */
  readonly stdout: string
  readonly stderr: string
  ended: Promise<ProgramEnd>
  /** Resolves with the first line of stdout that matches; rejects when the program ends without. */
  line(pattern: RegExp): Promise<string>
}

export function startOz(
  args: string[],
  env: NodeJS.ProcessEnv,
  { program = ozProgram, cwd }: { program?: string; cwd?: string } = {},
): RunningProgram {
  const child = spawn(process.execPath, [program, ...args], { env, cwd, stdio: ['pipe', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const ended = once(child, 'close').then(([exitCode]) => ({ exitCode: exitCode as number | null, stdout, stderr }))
  return {
    child,
    get stdout() {
      return stdout
    },
    get stderr() {
      return stderr
    },
    ended,
    line: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = stdout.split('\n').find((line) => pattern.test(line))
          if (found === undefined) return
          child.stdout.off('data', look)
          resolve(found)
        }
        child.stdout.on('data', look)
        look()
        void ended.then(() => reject(new Error(`it ended before it said ${pattern}:\n${stdout}\n${stderr}`)))
      }),
  }
}
