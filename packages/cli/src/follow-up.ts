import { text as readAll } from 'node:stream/consumers'
import { AppError, type FollowUpMode, type FollowUpResponse } from '@openoz/protocol'
import type { CommandContext } from './command-context.ts'
import type { Connection } from './connection.ts'
import { printJson } from './output.ts'
import { sendOnce } from './send-once.ts'
import type { WatchOptions } from './watch/watch-run.ts'

type Context = CommandContext & { connection: Connection }

/** Exit code 0 once the message was accepted, whatever becomes of it; with `watch` that of `oz run watch`. */
export async function followUp(
  context: Context,
  wish: { runId: string; text: string | undefined; mode: FollowUpMode; watch?: boolean },
): Promise<number> {
  const { connection, output } = context
  const { runId, mode, watch } = wish
  const message = await textOrInput(wish.text)
  // What was said and done before has been seen.
  const after = watch ? await connection.client.runs.get(runId) : undefined
  const said = await sendOnce((once) => connection.client.runs.followUp(runId, { message, mode }, once))
  if (!watch && output.isJson) printJson(output, said)
  if (!output.isJson) output.line(acceptedText(said))
  if (watch) return showLive(context, { runId, after })
  if (!output.isJson) output.line(`Watch it: oz run watch ${runId}`)
  return 0
}

/** Exit code 0 once the new run was accepted; with `watch` that of `oz run watch`. */
export async function forkRun(
  context: Context,
  wish: { runId: string; prompt: string | undefined; title?: string; watch?: boolean },
): Promise<number> {
  const { connection, output } = context
  const request = { prompt: await textOrInput(wish.prompt), ...(wish.title === undefined ? {} : { title: wish.title }) }
  const created = await sendOnce((once) => connection.client.runs.fork(wish.runId, request, once))
  if (!wish.watch && output.isJson) printJson(output, created)
  if (!output.isJson) output.line(`Forked run ${wish.runId}; the new run’s ID: ${created.run_id}`)
  if (wish.watch) return showLive(context, { runId: created.run_id })
  if (!output.isJson) output.line(`Watch it: oz run watch ${created.run_id}`)
  return 0
}

async function showLive(context: Context, options: WatchOptions): Promise<number> {
  const { watchRun } = await import('./watch/watch-run.ts')
  return watchRun(context, options)
}

/** A message from a pipe keeps its line breaks, except for those at its end. */
export async function textOrInput(text: string | undefined): Promise<string> {
  if (text !== undefined && text !== '-') return requireText(text)
  if (text === undefined && process.stdin.isTTY) return requireText('')
  return requireText((await readAll(process.stdin)).trimEnd())
}

/** Nothing but blanks is nothing. */
export function requireText(text: string): string {
  if (text.trim() !== '') return text
  throw new AppError('usage', { problem: 'There is nothing to say: give the text, or - and pipe it in.' })
}

/** What is said may stand by itself or be named, in every command that says something; not both. */
export function oneText(text: string | undefined, prompt: string | undefined): string | undefined {
  if (text === undefined || prompt === undefined) return text ?? prompt
  throw new AppError('usage', { problem: 'Give the text once: by itself or with --prompt.' })
}

/** The mode that it was taken as may be another than the one that was asked for: steering needs a turn at work. */
function acceptedText({ mode, turn }: FollowUpResponse): string {
  switch (mode) {
    case 'queue':
      return `Accepted as turn ${turn}.`
    case 'steer':
      return `Accepted; turn ${turn} hears it before its next step.`
    case 'interrupt':
      return `Accepted; turn ${turn} is interrupted for it.`
    default:
      return mode satisfies never
  }
}
