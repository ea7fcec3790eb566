import { AppError } from '@openoz/protocol'
import { findRun, type RunRecord } from '../store/runs.ts'
import { findLastSeq, listEvents } from '../store/session-log.ts'
import type { Actor } from './actors.ts'
import type { Ctx } from './context.ts'
import { requireRun } from './runs.ts'
import { type LinkTarget, openLinkSigner, requireSignedLink } from './signed-links.ts'

/** Events per read. Pages of large events end earlier by themselves. */
const pageEvents = 500

/** A link to the run's transcript that needs no key. Rejects with `run_not_found`. */
export async function transcriptLink(ctx: Ctx, runId: string, actor: Actor): Promise<string> {
  const run = await requireRun(ctx, runId, actor)
  return (await openLinkSigner(ctx)).sign(transcriptOf(run.id))
}

/** The run that a link leads to. Rejects with `link_invalid`, whatever is wrong with it. */
export async function openTranscriptLink(
  ctx: Ctx,
  { runId, ...link }: { runId: string; expires: string | undefined; signature: string | undefined },
): Promise<RunRecord> {
  await requireSignedLink(ctx, transcriptOf(runId), link)
  const run = await findRun(ctx.db, runId)
  if (!run) throw new AppError('run_not_found', { runId })
  return run
}

const transcriptOf = (runId: string): LinkTarget => ({ method: 'GET', path: `/agent/transcripts/${runId}` })

/** The whole session log as it is now, as one JSON document that is written while it is read. */
export async function* transcriptJson(ctx: Ctx, run: RunRecord): AsyncGenerator<string> {
  const head = { run_id: run.id, conversation_id: run.conversationId, title: run.title, prompt: run.prompt }
  yield `${JSON.stringify(head).slice(0, -1)},"events":[`
  const lastSeq = await findLastSeq(ctx.db, run.id)
  for (let since = 0; since < lastSeq; ) {
    const page = await listEvents(ctx.db, run.id, since, Math.min(pageEvents, lastSeq - since))
    if (page.length === 0) break
    yield `${since === 0 ? '' : ','}${page.map((event) => event.json).join(',')}`
    since = page.at(-1)?.seq ?? lastSeq
  }
  yield ']}'
}
