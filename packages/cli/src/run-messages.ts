import { fullJitterMs, sleep } from '@openoz/machine'
import {
  AppError,
  isApiError,
  isUuid,
  type MessageHeader,
  type RunEvent,
  type SendMessageRequest,
} from '@openoz/protocol'
import type { CommandContext } from './command-context.ts'
import type { Connection } from './connection.ts'
import { printJson } from './output.ts'
import { oneLine, plainText } from './plain-text.ts'
import { sendOnce } from './send-once.ts'
import { untilInterrupted } from './stop-signals.ts'
import { type Column, printList, renderFields } from './table.ts'
import { ageText } from './time-text.ts'
import { isWorthRetrying } from './watch/follow-session.ts'

/** `oz run message …`: messages between runs, as whoever coordinates them sends and reads them. */

type Context = CommandContext & { connection: Connection }

export async function sendMessage({ connection, output }: Context, request: SendMessageRequest): Promise<number> {
  if (request.to.length === 0) throw new AppError('usage', { problem: '--to names no run.' })
  const sent = await sendOnce((once) => connection.client.messages.send(request, once))
  if (output.isJson) printJson(output, sent)
  else for (const id of sent.message_ids) output.line(`Sent message ${id}.`)
  return 0
}

export async function listMessages(
  { connection, output }: Context,
  runId: string,
  query: { unread?: string; since?: string; limit: number },
): Promise<number> {
  const now = Date.now()
  const columns: Column<MessageHeader>[] = [
    { title: 'message', value: (row) => row.message_id },
    { title: 'from run', value: (row) => row.sender_run_id, dropOrder: 1 },
    { title: 'subject', value: (row) => row.subject, cutTo: 14 },
    { title: 'sent', value: (row) => ageText(row.sent_at, now), dropOrder: 2 },
    { title: 'state', value: stateOf },
  ]
  const rows = await connection.client.messages.list(runId, query)
  printList(output, { rows, columns, empty: 'No messages.' })
  return 0
}

function stateOf(message: MessageHeader): string {
  if (message.read_at !== null) return 'read'
  return message.delivered_at === null ? 'unread' : 'unread, delivered'
}

export async function readMessage({ connection, output, env }: Context, messageId: string): Promise<number> {
  const message = await connection.client.messages.read(messageId, runScope(env))
  if (output.isJson) {
    printJson(output, message)
    return 0
  }
  output.line(
    renderFields([
      ['From run', message.sender_run_id],
      ['Subject', oneLine(message.subject)],
      ['Sent', message.sent_at],
    ]),
  )
  output.line(`\n${plainText(message.body)}`)
  return 0
}

export async function markDelivered({ connection, output, env }: Context, messageId: string): Promise<number> {
  await connection.client.messages.markDelivered(messageId, runScope(env))
  if (output.isJson) printJson(output, { message_id: messageId, delivered: true })
  else output.line(`Message ${messageId} is delivered.`)
  return 0
}

function runScope(env: NodeJS.ProcessEnv): { forRun?: string } {
  const runId = env.OZ_RUN_ID?.trim()
  if (!runId) return {}
  if (isUuid(runId)) return { forRun: runId }
  throw new AppError('usage', { problem: 'OZ_RUN_ID is not the id of a run. Correct it, or unset it.' })
}

/** Runs until it is interrupted. Where a connection was cut it goes on by itself, so that each message is printed once. */
export async function watchMessages(
  context: Context,
  { runId, since }: { runId: string; since: number },
): Promise<number> {
  const { connection, output } = context
  if (output.format !== 'ndjson')
    throw new AppError('usage', { problem: 'Messages are watched as ndjson only: add --output-format ndjson.' })
  // An id that does not exist is said by the server in better words than a stream can.
  await connection.client.messages.list(runId, { limit: 1 })
  return untilInterrupted(async (signal) => {
    for await (const event of followEvents(context, { runId, since, signal }))
      if (event.event_type === 'new_message' && event.ref_id !== null) await printMessage(context, event, signal)
    return 0
  })
}

/** Tried until the server answers: the stream does not bring it a second time. */
async function printMessage({ connection, output }: Context, event: RunEvent, signal: AbortSignal): Promise<void> {
  for (let failures = 0; ; failures++) {
    try {
      const { message_id, sender_run_id, subject, body } = await connection.client.messages.read(event.ref_id ?? '')
      const { sequence, occurred_at } = event
      printJson(output, { sequence, message_id, sender_run_id, subject, body, occurred_at })
      return
    } catch (error) {
      if (isApiError(error, 'message_not_found')) return
      if (!isWorthRetrying(error)) throw error
      await pause(failures, signal)
    }
  }
}

const pause = (failures: number, signal?: AbortSignal) =>
  sleep(fullJitterMs(failures, { baseMs: 250, maxMs: 5_000 }), signal)

async function* followEvents(
  { connection, output }: Context,
  { runId, since, signal }: { runId: string; since: number; signal: AbortSignal },
): AsyncGenerator<RunEvent, void, undefined> {
  const { dialer, apiKey } = connection
  let cursor = since
  for (let failures = 0; ; failures++) {
    signal.throwIfAborted()
    try {
      const query = new URLSearchParams({ 'run_ids[]': runId, since: String(cursor) })
      const stream = dialer.eventStream(`/api/v1/agent/events/stream?${query}`, {
        headers: { authorization: `Bearer ${apiKey}` },
        signal,
      })
      for await (const { data } of stream) {
        failures = 0
        const event = parseEvent(data)
        if (!event || event.sequence <= cursor) continue
        cursor = event.sequence
        yield event
      }
    } catch (error) {
      if (signal.aborted || !isWorthRetrying(error)) throw error
      output.note(`(connection lost: ${error instanceof Error ? oneLine(error.message) : ''}; trying again)`)
    }
    await pause(failures, signal)
  }
}

function parseEvent(data: string): RunEvent | undefined {
  try {
    const event = JSON.parse(data) as RunEvent
    return typeof event.sequence === 'number' ? event : undefined
  } catch {
    return undefined
  }
}
