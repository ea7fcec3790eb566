import { writeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { constants } from 'node:os'
import type { IPty } from '@lydell/node-pty'
import { commandShell, identifyProcess } from '@openoz/machine'
import {
  type CommandExit,
  type CommandProcess,
  inheritedDescriptor,
  type ProcessOptions,
  requireRoom,
  shellScript,
} from './command-process.ts'

type NodePty = Pick<typeof import('@lydell/node-pty'), 'spawn'>

/** What node-pty's terminals have on Unix beyond their declared type, in the version that package.json pins. */
interface UnixTerminal extends IPty {
  /** The master's descriptor. It never blocks. */
  readonly fd: number
  readonly _socket: Socket
}

/** Wide enough that tables and paths are not broken. */
const size = { cols: 120, rows: 30 }
const retryMs = 20

/**
 * A command in a terminal of its own, for programs that ask, draw or behave differently without one. Rejects with an Error for the model when it
 * cannot be started. node-pty holds native code for some platforms only, so it is loaded when it is needed.
 *
 * Input is written here and not by node-pty: its stream is a blocking one for libuv, which would spin, with everything else in this process,
 * until the command reads.
 */
export async function openPseudoTerminal(
  { command, folder, env, onOutput }: ProcessOptions,
  load: () => Promise<NodePty> = () => import('@lydell/node-pty'),
): Promise<CommandProcess> {
  const { spawn } = await loadNodePty(load)
  // node-pty would write `undefined` as a value.
  const known = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined))
  const options = { name: 'xterm-256color', ...size, cwd: folder, env: known }
  const shell = commandShell()
  const script = shellScript(shell, command, { isMerged: false })
  const terminal = spawn(shell.program, shell.args(script), options) as UnixTerminal
  const root = identifyProcess(terminal.pid)
  const socket = terminal._socket
  const descriptor = inheritedDescriptor(terminal.fd)
  // Without a listener of ours node-pty throws what it does not know, with nobody there to catch it.
  socket.on('error', () => {})
  socket.once('close', () => descriptor[Symbol.dispose]())
  terminal.onData((text) => onOutput(Buffer.from(text)))

  let pending: Buffer = Buffer.alloc(0)
  let retry: NodeJS.Timeout | undefined
  function sendPending(): void {
    retry = undefined
    // Once the socket is destroyed the descriptor may be somebody else's.
    while (pending.length > 0 && !socket.destroyed) {
      try {
        pending = pending.subarray(writeSync(terminal.fd, pending))
      } catch (error) {
        if (!isFull(error)) break
        retry = setTimeout(sendPending, retryMs)
        return
      }
    }
    pending = Buffer.alloc(0)
  }

  const exited = new Promise<CommandExit>((resolve) => {
    terminal.onExit(({ exitCode, signal }) => {
      clearTimeout(retry)
      resolve({ code: signal ? null : exitCode, signal: signal ? signalName(signal) : null, isOutputHeld: false })
    })
  })
  function write(text: string): void {
    if (socket.destroyed) throw new Error('The command reads no more input: it has closed its terminal.')
    requireRoom(pending.length, text)
    pending = Buffer.concat([pending, Buffer.from(text)])
    if (retry === undefined) sendPending()
  }

  return {
    root,
    exited,
    write,
    closeInput: () => write('\x04'),
    get pendingInputBytes() {
      return pending.length
    },
  }
}

async function loadNodePty(load: () => Promise<NodePty>): Promise<NodePty> {
  try {
    return await load()
  } catch (cause) {
    throw new Error('There are no pseudo-terminals on this machine. Run the command without `pty`.', { cause })
  }
}

function isFull(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EAGAIN' || error.code === 'EINTR')
}

function signalName(number: number): NodeJS.Signals | null {
  const found = Object.entries(constants.signals).find(([, value]) => value === number)
  return found ? (found[0] as NodeJS.Signals) : null
}
