import { fullJitterMs, sleep } from '@openoz/machine'
import type { AgentCommand } from '@openoz/protocol'
import type { Logger } from 'pino'
import { type AgentChannel, isRefusal } from './channel.ts'

interface CommandInboxOptions {
  channel: AgentChannel
  signal: AbortSignal
  log: Logger
  /** Called once per command, however often it is delivered. */
  onCommand: (command: AgentCommand) => void
  /** The control plane says that the execution is over. */
  onRefused: (detail: string) => void
}

const longConnectionMs = 10_000
/** What the control plane takes in one acknowledgement. */
const maxAcknowledged = 100

/**
 * Listens for what the control plane wants of a live agent: connects again after every break (the server delivers until it was
 * acknowledged) and ends with its signal, or when it is refused. Never rejects.
 *
 * A command has its effect when it arrives; acknowledgements go their own way behind it, so that a cancel does not wait for the answer about the
 * message before it.
 */
export async function followCommands(options: CommandInboxOptions): Promise<void> {
  const { channel, signal, log, onRefused } = options
  const seen = new Set<string>()
  const acknowledge = createAcknowledger(options)
  for (let failures = 0; !signal.aborted; failures++) {
    const connectedAt = performance.now()
    try {
      for await (const { data } of channel.commands(signal)) {
        const command = parseCommand(data)
        if (!command) continue
        takeOnce(options, seen, command)
        acknowledge(command.id)
      }
    } catch (error) {
      if (signal.aborted) return
      if (isRefusal(error)) return onRefused(error.problem.detail)
      log.debug({ err: error }, 'the command stream broke; connecting again')
    }
    // Proxies end streams after a while; that is no failure.
    if (performance.now() - connectedAt > longConnectionMs) failures = 0
    await sleep(fullJitterMs(failures, { baseMs: 250, maxMs: 5_000 }), signal)
  }
}

function parseCommand(data: string): AgentCommand | undefined {
  try {
    const value: unknown = JSON.parse(data)
    const isCommand = typeof value === 'object' && value !== null && 'id' in value && 'type' in value
    return isCommand ? (value as AgentCommand) : undefined
  } catch {
    return undefined
  }
}

function takeOnce({ log, onCommand }: CommandInboxOptions, seen: Set<string>, command: AgentCommand): void {
  if (seen.has(command.id)) return
  seen.add(command.id)
  log.info({ command: command.type }, 'command received')
  onCommand(command)
}

/** Acknowledges in the background, one call at a time. What does not arrive is delivered, and acknowledged, again. */
function createAcknowledger({ channel, signal, log, onRefused }: CommandInboxOptions): (id: string) => void {
  const waiting = new Set<string>()
  let isAtWork = false

  async function work(): Promise<void> {
    while (waiting.size > 0) {
      const ids = [...waiting].slice(0, maxAcknowledged)
      for (const id of ids) waiting.delete(id)
      await channel.acknowledgeCommands(ids, signal)
    }
  }

  return (id) => {
    waiting.add(id)
    if (isAtWork) return
    isAtWork = true
    work()
      .catch((error: unknown) => {
        if (signal.aborted) return
        if (isRefusal(error)) onRefused(error.problem.detail)
        else log.debug({ err: error }, 'commands could not be acknowledged')
      })
      .finally(() => {
        isAtWork = false
      })
  }
}
