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

/**
 * Listens for what the control plane wants of a live agent: connects again after every break (the server delivers until it was
 * acknowledged) and ends with its signal, or when it is refused. Never rejects.
 */
export async function followCommands(options: CommandInboxOptions): Promise<void> {
  const { channel, signal, log, onRefused } = options
  const seen = new Set<string>()
  for (let failures = 0; !signal.aborted; failures++) {
    const connectedAt = performance.now()
    try {
      for await (const { data } of channel.commands(signal)) await takeCommand(options, seen, data)
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

async function takeCommand(options: CommandInboxOptions, seen: Set<string>, data: string): Promise<void> {
  const { channel, signal, log, onCommand } = options
  const command = parseCommand(data)
  if (!command) return
  if (!seen.has(command.id)) {
    seen.add(command.id)
    log.info({ command: command.type }, 'command received')
    onCommand(command)
  }
  await channel.acknowledgeCommands([command.id], signal)
}
