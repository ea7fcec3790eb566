import { AppError, type Run } from '@openoz/protocol'
import type { CommandContext } from '../command-context.ts'
import type { Connection } from '../connection.ts'
import type { Output } from '../output.ts'
import { oneLine } from '../plain-text.ts'
import { durationText } from '../time-text.ts'
import { usageText } from '../usage-text.ts'
import { followSession, isRest } from './follow-session.ts'
import { createSessionRenderer } from './session-renderer.ts'
import { renderWaterfall } from './waterfall.ts'

/** 128 + SIGINT, as shells report it. */
const interrupted = 130

type Context = CommandContext & { connection: Connection }

export interface WatchOptions {
  runId: string
  /** Begin after this event. */
  since?: number
  /** Fold nothing. */
  full?: boolean
  /** Stay until no agent waits for follow-ups any more. */
  follow?: boolean
}

/** `oz run watch`. Exit code 0 when the run succeeded, 1 when it ended otherwise or waits for a person, 130 when the watcher had enough. */
export async function watchRun(context: Context, options: WatchOptions): Promise<number> {
  const { output } = context
  const stop = new AbortController()
  const onInterrupt = () => stop.abort(new Error('interrupted'))
  process.once('SIGINT', onInterrupt)
  try {
    const state = await showSession(context, { ...options, signal: stop.signal })
    return state === 'SUCCEEDED' ? 0 : 1
  } catch (error) {
    if (!stop.signal.aborted) throw error
    output.note(`\nNo longer watching. The run goes on; stop it with: oz run cancel ${options.runId}`)
    return interrupted
  } finally {
    process.off('SIGINT', onInterrupt)
  }
}

/** Shows a run until it rests, and returns its state. Rejects with the signal's reason. */
export async function showSession(
  { connection, output }: Pick<Context, 'connection' | 'output'>,
  { runId, since = 0, full, follow, signal }: WatchOptions & { signal?: AbortSignal },
): Promise<string> {
  const { client, dialer, apiKey } = connection
  // An id that does not exist is said by the server in better words than a stream can.
  await client.runs.get(runId)
  const isAtRest = async (lastSeq: number) => {
    const run = await client.runs.get(runId)
    return isRest(run.state) && run.last_event_sequence <= lastSeq
  }
  const write = output.isJson ? () => {} : output.write
  const renderer = createSessionRenderer(write, { colors: output.colors, isFull: full })
  const onBreak = (error: unknown) => output.note(breakText(error))
  const events = followSession({ dialer, apiKey, runId, since, signal, onBreak, ...(follow ? {} : { isAtRest }) })
  for await (const event of events) {
    if (output.isJson) output.line(JSON.stringify(event))
    renderer.render(event)
  }
  renderer.end()
  const run = await client.runs.get(runId)
  if (!output.isJson) await printEnd({ connection, output, run })
  return renderer.summary.state ?? run.state
}

function breakText(error: unknown): string {
  const problem = error instanceof AppError ? String(error.details.problem ?? error.message) : String(error)
  return `(connection lost: ${oneLine(problem)}; trying again)`
}

async function printEnd(end: { connection: Connection; output: Output; run: Run }): Promise<void> {
  const { connection, output, run } = end
  const { executions } = await connection.client.runs.executions(run.run_id)
  for (const [index, execution] of executions.entries()) {
    const lines = renderWaterfall(execution.waterfall, { colors: output.colors })
    if (lines.length === 0) continue
    const attempt = executions.length > 1 ? `, attempt ${index + 1}` : ''
    output.line(`\nFrom accepted to done on ${oneLine(execution.worker)}${attempt}:`)
    for (const line of lines) output.line(`  ${line}`)
  }
  const facts = []
  if (run.finished_at !== null) {
    facts.push(durationText(Date.parse(run.finished_at) - Date.parse(run.created_at)))
  }
  if (run.usage.requests > 0) facts.push(`tokens: ${usageText(run.usage)}`)
  if (facts.length > 0) output.line(`\n${facts.join(' · ')}`)
  if (run.state === 'BLOCKED') output.line(`\nAnswer it: oz run follow-up ${run.run_id} "…"`)
}
