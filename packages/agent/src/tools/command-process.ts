import { type ChildProcess, spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import {
  type CommandShell,
  commandShell,
  identifyProcess,
  ownTree,
  type ProcessIdentity,
  withOneOutput,
} from '@openoz/machine'
import { drainOutput } from '../child-end.ts'

/** A command at work: behind pipes (here), or behind a pseudo-terminal (`pseudo-terminal.ts`). */
export interface CommandProcess {
  /** Known from the start: a process that has ended cannot be identified any more, but what it started can be found through it. */
  readonly root: ProcessIdentity | undefined
  /** Resolves when it has ended and its output was read. Never rejects. */
  readonly exited: Promise<CommandExit>
  /** Throws an Error for the model when the command takes no input, or has not read what it was given before. */
  write(input: string): void
  /** The end of the input. */
  closeInput(): void
  /** Input that the command has not read yet. */
  readonly pendingInputBytes: number
}

export interface CommandExit {
  code: number | null
  signal: NodeJS.Signals | null
  /** Something that it had started still holds its output. */
  isOutputHeld: boolean
}

export interface ProcessOptions {
  command: string
  folder: string
  env: NodeJS.ProcessEnv
  onOutput: (bytes: Uint8Array) => void
}

/** Input that waits for a command which does not read; more is refused. */
const maxPendingInputBytes = 1024 * 1024

/** With `input` the command has a pipe to read from, without it stdin is empty. Rejects with an Error for the model when it cannot be started. */
export async function startPipedCommand({
  command,
  folder,
  env,
  onOutput,
  input,
}: ProcessOptions & { input: boolean }): Promise<CommandProcess> {
  // One pipe for both, so that what was printed first stands first.
  const shell = commandShell()
  const child = spawn(shell.program, shell.args(shellScript(shell, command)), {
    cwd: folder,
    env,
    ...ownTree(),
    stdio: [input ? 'pipe' : 'ignore', 'pipe', 'ignore'],
  })
  if (child.pid === undefined) throw await startFailure(child)
  // From here on errors are those of signals that were not delivered, which nobody waits for.
  child.on('error', () => {})
  const root = identifyProcess(child.pid)
  const stdout = child.stdout as Readable
  stdout.on('data', onOutput)
  const { stdin } = child
  // A command that has ended or closed its stdin: `writable` says so at the next write.
  stdin?.on('error', () => {})
  const exited = new Promise<CommandExit>((resolve) => {
    child.once('exit', (code, signal) => {
      void drainOutput([stdout]).then((isClosed) => {
        if (!isClosed) child.unref()
        resolve({ code, signal, isOutputHeld: !isClosed })
      })
    })
  })
  return {
    root,
    exited,
    write(text) {
      if (!stdin?.writable) throw new Error('The command reads no more input: its stdin is closed.')
      requireRoom(stdin.writableLength, text)
      stdin.write(text)
    },
    closeInput: () => void stdin?.end(),
    get pendingInputBytes() {
      return stdin?.writableLength ?? 0
    },
  }
}

export function requireRoom(pendingBytes: number, text: string): void {
  if (pendingBytes + Buffer.byteLength(text) <= maxPendingInputBytes) return
  throw new Error(
    `The command does not read its input: ${pendingBytes} bytes are waiting for it already. Nothing of this was sent.`,
  )
}

/** Masters of pseudo-terminals that are open in this process. */
const terminalDescriptors = new Set<number>()

export function inheritedDescriptor(descriptor: number): Disposable {
  terminalDescriptors.add(descriptor)
  return { [Symbol.dispose]: () => void terminalDescriptors.delete(descriptor) }
}

/**
 * The command as the shell gets it. node-pty lets everything that is started later inherit its descriptors, so each command closes those of the
 * terminals beside it.
 */
export function shellScript(
  shell: CommandShell,
  command: string,
  { isMerged = true }: { isMerged?: boolean } = {},
): string {
  return withOneOutput(shell, command, { isMerged, closing: [...terminalDescriptors] })
}

function startFailure(child: ChildProcess): Promise<Error> {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(new Error(`The command could not be started: ${error.message}`)))
  })
}
