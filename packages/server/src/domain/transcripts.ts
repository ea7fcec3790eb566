import { AppError } from '@openoz/protocol'
import { findDatabaseSeconds } from '../store/conversations.ts'
import { findRun, type RunRecord } from '../store/runs.ts'
import { findLastSeq, listEvents } from '../store/session-log.ts'
import type { Actor } from './actors.ts'
import type { Ctx } from './context.ts'
import { requireRun } from './runs.ts'

/** Long enough for a person to hand a link to a program, short enough that a leaked one is soon worth nothing. */
const linkSeconds = 15 * 60

/** Events per read. Pages of large events end earlier by themselves. */
const pageEvents = 500

/** A link to the run's transcript that needs no key. Rejects with `run_not_found`. */
export async function transcriptLink(ctx: Ctx, runId: string, actor: Actor): Promise<string> {
  const run = await requireRun(ctx, runId, actor)
  const expires = (await findDatabaseSeconds(ctx.db)) + linkSeconds
  const query = new URLSearchParams({
    expires: String(expires),
    signature: ctx.signing.sign(signedText(run.id, expires)),
  })
  return `${ctx.publicUrl}/api/v1/agent/transcripts/${run.id}?${query}`
}

/** The run that a link leads to. Rejects with `transcript_link_invalid`, whatever is wrong with it. */
export async function openTranscriptLink(
  ctx: Ctx,
  link: { runId: string; expires: string | undefined; signature: string | undefined },
): Promise<RunRecord> {
  const expires = Number(link.expires)
  const isSigned =
    Number.isSafeInteger(expires) && ctx.signing.verify(signedText(link.runId, expires), link.signature ?? '')
  if (!isSigned || expires < (await findDatabaseSeconds(ctx.db))) throw new AppError('transcript_link_invalid')
  const run = await findRun(ctx.db, link.runId)
  if (!run) throw new AppError('run_not_found', { runId: link.runId })
  return run
}

function signedText(runId: string, expires: number): string {
  return `transcript ${runId} ${expires}`
}

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
