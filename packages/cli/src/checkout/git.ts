import { execFile } from 'node:child_process'
import { AppError } from '@openoz/protocol'

export interface GitOptions {
  folder: string
  env?: Record<string, string>
  input?: Uint8Array
}

interface GitResult {
  exitCode: number
  stdout: string
  stderr: string
}

/** Runs the user's git in the user's repository. Never asks anything; a missing git is `git_command_failed` too. */
export function tryGit(args: string[], { folder, env = {}, input }: GitOptions): Promise<GitResult> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      'git',
      ['-C', folder, ...args],
      {
        encoding: 'utf8',
        maxBuffer: 64 * 1024 * 1024,
        env: { ...process.env, GIT_TERMINAL_PROMPT: '0', LC_ALL: 'C', ...env },
      },
      (error, stdout, stderr) => {
        if (error && typeof error.code !== 'number') {
          reject(failed(args, folder, error.message))
          return
        }
        resolve({ exitCode: error ? Number(error.code) : 0, stdout: stdout.trimEnd(), stderr: stderr.trimEnd() })
      },
    )
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}

/** What git answered. Rejects with `git_command_failed` when it failed. */
export async function git(args: string[], options: GitOptions): Promise<string> {
  const { exitCode, stdout, stderr } = await tryGit(args, options)
  if (exitCode === 0) return stdout
  throw failed(args, options.folder, stderr.split('\n').at(-1) || `exit code ${exitCode}`)
}

/** What git answered, or undefined when it said no. */
export async function askGit(args: string[], options: GitOptions): Promise<string | undefined> {
  const { exitCode, stdout } = await tryGit(args, options)
  return exitCode === 0 ? stdout : undefined
}

function failed(args: string[], folder: string, problem: string): AppError {
  const command = args
    .filter((arg) => !arg.startsWith('-'))
    .slice(0, 1)
    .join(' ')
  return new AppError('git_command_failed', { command, folder, problem })
}
