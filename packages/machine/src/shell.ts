import { existsSync } from 'node:fs'
import { delimiter, isAbsolute, join, win32 } from 'node:path'
import { AppError } from '@openoz/protocol'

/**
 * The shell that commands are written for: bash where the machine has it, else the POSIX shell that every Unix has; on Windows the bash of Git for
 * Windows, else PowerShell. Used for tools and for setup commands. Some container images keep their shell elsewhere on the PATH, and some have none:
 * then it throws `shell_missing`. The platform is a parameter so that each branch is tested on every machine.
 */
export interface CommandShell {
  program: string
  kind: 'bash' | 'sh' | 'powershell'
  /** The program's arguments for a script. */
  args(script: string): string[]
}

export interface ShellPlace {
  platform?: NodeJS.Platform
  env?: NodeJS.ProcessEnv
  exists?: (path: string) => boolean
}

export function commandShell({
  platform = process.platform,
  env = process.env,
  exists = existsSync,
}: ShellPlace = {}): CommandShell {
  if (platform === 'win32') {
    const bash = gitBashPaths(env).find((path) => exists(path))
    return bash === undefined ? powershell(env) : posix(bash, 'bash')
  }
  const folders = ['/bin', ...(env.PATH ?? '').split(delimiter).filter(isAbsolute)]
  for (const kind of ['bash', 'sh'] as const) {
    const program = folders.map((folder) => join(folder, kind)).find((path) => exists(path))
    if (program !== undefined) return posix(program, kind)
  }
  throw new AppError('shell_missing')
}

/**
 * The script with stdout and stderr in one stream, in the order in which they were written. `closing`: descriptors that the shell shall not
 * pass on; only what this kind of shell can name is closed.
 */
export function withOneOutput(
  { kind }: Pick<CommandShell, 'kind'>,
  script: string,
  { isMerged = true, closing = [] }: { isMerged?: boolean; closing?: readonly number[] } = {},
): string {
  // PowerShell's errors are objects, which it would print in a form of its own; what programs write comes through as it is.
  if (kind === 'powershell') return isMerged ? `& {\n${script}\n} 2>&1\nexit $LASTEXITCODE` : script
  // Shells other than bash know descriptors of one digit only.
  const closed = closing.filter((fd) => kind === 'bash' || fd < 10).map((fd) => `${fd}>&-`)
  const redirections = [...(isMerged ? ['2>&1'] : []), ...closed]
  return redirections.length === 0 ? script : `exec ${redirections.join(' ')}\n${script}`
}

/**
 * How a process that leads a tree of its own is started. On Unix in a session of its own, so that a Ctrl-C at the terminal reaches nobody but us;
 * on Windows, where that would open a window, in ours, and hidden.
 */
export function ownTree(platform: NodeJS.Platform = process.platform): { detached: boolean; windowsHide: boolean } {
  return { detached: platform !== 'win32', windowsHide: true }
}

function posix(program: string, kind: 'bash' | 'sh'): CommandShell {
  return { program, kind, args: (script) => ['-c', script] }
}

function powershell(env: NodeJS.ProcessEnv): CommandShell {
  const root = env.SystemRoot ?? 'C:\\Windows'
  return {
    program: win32.join(root, 'System32', 'WindowsPowerShell', 'v1.0', 'powershell.exe'),
    kind: 'powershell',
    args: (script) => ['-NoProfile', '-NonInteractive', '-ExecutionPolicy', 'Bypass', '-Command', script],
  }
}

/** Not `bash` from the PATH: on Windows that is the one of its Linux subsystem, which sees another machine. */
function gitBashPaths(env: NodeJS.ProcessEnv): string[] {
  const roots = [
    env.ProgramFiles,
    env['ProgramFiles(x86)'],
    env.LOCALAPPDATA && win32.join(env.LOCALAPPDATA, 'Programs'),
  ]
  return roots.flatMap((root) => (root ? [win32.join(root, 'Git', 'bin', 'bash.exe')] : []))
}
