import { type AgentCommand, isLive } from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import type { Ctx } from '../domain/context.ts'
import { listOpenCommands } from '../store/commands.ts'
import { findExecution } from '../store/executions.ts'
import { oneOf } from './run-tails.ts'

const pollMs = 5_000
const keepAliveMs = 15_000
const encoder = new TextEncoder()

/**
 * The inbox of one execution as server-sent events: everything that is not acknowledged, then what comes. An agent that reconnects gets what it
 * had not acknowledged again and knows it by its id. Ends with `stop` when the execution is over.
 */
export async function* viewCommands(ctx: Ctx, executionId: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const sent = new Set<string>()
  let change = Promise.withResolvers<void>()
  const unsubscribe = ctx.hints.subscribe(`commands ${executionId}`, () => change.resolve())
  let quietMs = 0
  try {
    yield encoder.encode(': connected\n\n')
    while (!signal.aborted) {
      change = Promise.withResolvers<void>()
      const fresh = (await listOpenCommands(ctx.db, executionId)).filter((command) => !sent.has(command.id))
      for (const command of fresh) {
        sent.add(command.id)
        yield frame(command)
      }
      const execution = await findExecution(ctx.db, executionId)
      if (!execution || !isLive(execution.state)) {
        yield frame({ id: uuidv7(), type: 'stop', payload: { reason: 'This execution is over.' } })
        return
      }
      const woken = await oneOf(change.promise, pollMs, signal)
      quietMs = woken === 'timeout' ? quietMs + pollMs : 0
      if (quietMs >= keepAliveMs) {
        quietMs = 0
        yield encoder.encode(': keep-alive\n\n')
      }
    }
  } finally {
    unsubscribe()
  }
}

function frame(command: AgentCommand): Uint8Array {
  return encoder.encode(`id: ${command.id}\nevent: ${command.type}\ndata: ${JSON.stringify(command)}\n\n`)
}
