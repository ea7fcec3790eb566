import { AppError, type Run } from '@openoz/protocol'
import type { CommandContext } from '../command-context.ts'
import type { Connection } from '../connection.ts'
import { oneLine } from '../plain-text.ts'
import { untilInterrupted } from '../stop-signals.ts'
import { endText } from './end-text.ts'
import { followSession, isRest } from './follow-session.ts'
import { createSessionRenderer } from './session-renderer.ts'

type Context = CommandContext & { connection: Connection }

export interface WatchOptions {
  runId: string
  /** Begin after this event. */
  since?: number
  /** The run as it was before a message of one’s own: what is shown and told begins with that message. */
  after?: Run
  /** Fold nothing. */
  full?: boolean
  /** Stay until no agent waits for follow-ups any more. */
  follow?: boolean
}

/** `oz run watch`. Exit code 0 when the run succeeded, 1 when it ended otherwise or waits for a person, 130 when the watcher had enough. */
export async function watchRun(context: Context, options: WatchOptions): Promise<number> {
  const show = async (signal: AbortSignal) => {
    const state = await showSession(context, { ...options, signal })
    return state === 'SUCCEEDED' ? 0 : 1
  }
  return untilInterrupted(show, () =>
    context.output.note(`\nNo longer watching. The run goes on; stop it with: oz run cancel ${options.runId}`),
  )
}

/** Shows a run until it rests, and returns its state. Rejects with the signal's reason. */
export async function showSession(
  { connection, output }: Pick<Context, 'connection' | 'output'>,
  {
    runId,
    after,
    since = after?.last_event_sequence ?? 0,
    full,
    follow,
    signal,
  }: WatchOptions & { signal?: AbortSignal },
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
  let from: { at: string; usage: Run['usage'] } | undefined
  for await (const event of events) {
    if (after && event.type === 'user_message') from ??= { at: event.at, usage: after.usage }
    if (output.isJson) output.line(JSON.stringify(event))
    renderer.render(event)
  }
  renderer.end()
  const run = await client.runs.get(runId)
  if (!output.isJson) {
    const { executions } = await client.runs.executions(runId)
    output.write(endText({ run, executions, ...(from && { from }) }, output))
  }
  return renderer.summary.state ?? run.state
}

function breakText(error: unknown): string {
  const problem = error instanceof AppError ? String(error.details.problem ?? error.message) : String(error)
  return `(connection lost: ${oneLine(problem)}; trying again)`
}
