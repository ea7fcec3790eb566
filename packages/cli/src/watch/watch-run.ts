import { AppError } from '@openoz/protocol'
import type { CommandContext } from '../command-context.ts'
import type { Connection } from '../connection.ts'
import type { Output } from '../output.ts'
import { oneLine } from '../plain-text.ts'
import { tokenText } from '../run-lists.ts'
import { durationText } from '../time-text.ts'
import { followSession } from './follow-session.ts'
import { createSessionRenderer, type SessionSummary } from './session-renderer.ts'
import { renderWaterfall } from './waterfall.ts'

/** 128 + SIGINT, as shells report it. */
const interrupted = 130

type Context = CommandContext & { connection: Connection }

/** `oz run watch`. Exit code 0 when the run succeeded, 1 when it ended otherwise, 130 when the watcher had enough. */
export async function watchRun(context: Context, { runId, since }: { runId: string; since: number }): Promise<number> {
  const { output } = context
  const stop = new AbortController()
  const onInterrupt = () => stop.abort(new Error('interrupted'))
  process.once('SIGINT', onInterrupt)
  try {
    const state = await showSession(context, { runId, since, signal: stop.signal })
    return state === 'SUCCEEDED' ? 0 : 1
  } catch (error) {
    if (!stop.signal.aborted) throw error
    output.note(`\nNo longer watching. The run goes on; stop it with: oz run cancel ${runId}`)
    return interrupted
  } finally {
    process.off('SIGINT', onInterrupt)
  }
}

/** Shows a run until it rests, and returns its state. Rejects with the signal's reason. */
export async function showSession(
  { connection, output }: Pick<Context, 'connection' | 'output'>,
  { runId, since = 0, signal }: { runId: string; since?: number; signal?: AbortSignal },
): Promise<string> {
  const { client, dialer, apiKey } = connection
  // An id that does not exist is said by the server in better words than a stream can.
  const before = await client.runs.get(runId)
  const renderer = createSessionRenderer(output.isJson ? () => {} : output.write, output.colors)
  const onBreak = (error: unknown) => output.note(breakText(error))
  for await (const event of followSession({ dialer, apiKey, runId, since, signal, onBreak })) {
    if (output.isJson) output.line(JSON.stringify(event))
    renderer.render(event)
  }
  if (!output.isJson) await printEnd({ connection, output, runId, summary: renderer.summary })
  return renderer.summary.state ?? before.state
}

function breakText(error: unknown): string {
  const problem = error instanceof AppError ? String(error.details.problem ?? error.message) : String(error)
  return `(connection lost: ${oneLine(problem)}; trying again)`
}

async function printEnd(end: {
  connection: Connection
  output: Output
  runId: string
  summary: SessionSummary
}): Promise<void> {
  const { connection, output, runId, summary } = end
  const [{ executions }, run] = await Promise.all([
    connection.client.runs.executions(runId),
    connection.client.runs.get(runId),
  ])
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
  if (summary.inputTokens + summary.outputTokens > 0) {
    facts.push(`tokens: ${tokenText(summary.inputTokens, summary.outputTokens)}`)
  }
  if (facts.length > 0) output.line(`\n${facts.join(' · ')}`)
}
