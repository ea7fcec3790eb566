import {
  AppError,
  type ArtifactResponse,
  isUuid,
  maxArtifactBytes,
  type UploadArtifactQuery,
  type UploadArtifactResponse,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { type ArtifactRecord, listArtifacts } from '../store/artifacts.ts'
import { insertAuditEvent } from '../store/audit-events.ts'
import { deleteBlob, findBlob, type StoredBlob } from '../store/blobs.ts'
import { findRun, listRunsOfConversation, type RunRecord } from '../store/runs.ts'
import { type Actor, actorLabel } from './actors.ts'
import type { Ctx } from './context.ts'
import { blobLink } from './downloads.ts'
import { doOnce, type RequestIdentity } from './idempotency.ts'
import { maySee } from './permissions.ts'
import { requireRun } from './runs.ts'
import { appendServerEvents } from './session-log.ts'
import { openLinkSigner } from './signed-links.ts'
import { type Upload, withStoredUpload } from './uploads.ts'

/**
 * What runs made for people. An artifact is an event of its run's log, written by its agent or by whoever uploads one, and nothing else: so it is
 * listed with the run and read here from the same place. Its bytes are a blob of the same run.
 */

/** One that can be read or downloaded: a plan's text, or a link to the bytes. Rejects with `artifact_not_found`. */
export async function getArtifact(ctx: Ctx, uid: string, actor: Actor): Promise<ArtifactResponse> {
  const found = await findVisible(ctx, uid, actor)
  if (!found) throw new AppError('artifact_not_found', { artifactUid: uid })
  const { data, at, runId } = found
  const common = { artifact_uid: uid, created_at: at.toISOString() }
  switch (data.artifact_type) {
    case 'PLAN': {
      const document_uid = text(data.document_uid) ?? uid
      const { title, url } = data
      return {
        ...common,
        artifact_type: 'PLAN',
        data: {
          document_uid,
          notebook_uid: document_uid,
          ...optional({ title, url }),
          content: text(data.content) ?? '',
          content_type: 'text/markdown',
        },
      }
    }
    case 'SCREENSHOT': {
      const { description } = data
      const download = await downloadOf(ctx, { uid, runId, data })
      return { ...common, artifact_type: 'SCREENSHOT', data: { ...download, ...optional({ description }) } }
    }
    case 'FILE': {
      const { description, title } = data
      const filename = text(data.filename) ?? uid
      return {
        ...common,
        artifact_type: 'FILE',
        data: {
          ...(await downloadOf(ctx, { uid, runId, data })),
          filepath: text(data.filepath) ?? filename,
          filename,
          ...optional({ description, title }),
          ...(Number.isSafeInteger(data.size_bytes) ? { size_bytes: data.size_bytes as number } : {}),
        },
      }
    }
    default:
      throw new AppError('invalid_request', {
        problem: `Artifact ${uid} is a ${String(data.artifact_type).slice(0, 64)}: all of it is in the item of run ${runId}.`,
      })
  }
}

async function findVisible(ctx: Ctx, uid: string, actor: Actor): Promise<ArtifactRecord | undefined> {
  for (const artifact of await listArtifacts(ctx.db, actor.teamId, uid)) {
    const run = await findRun(ctx.db, artifact.runId)
    if (run && maySee(run, actor)) return artifact
  }
  return undefined
}

/** The agent names its blob. Only one of its own run is given out, whatever it says. */
async function downloadOf(
  ctx: Ctx,
  { uid, runId, data }: { uid: string; runId: string; data: Record<string, unknown> },
): Promise<{ download_url: string; expires_at: string; content_type: string }> {
  const blobId = text(data.blob_id)
  const blob = blobId !== undefined && isUuid(blobId) ? await findBlob(ctx.db, blobId) : undefined
  if (blob?.runId !== runId) throw new AppError('artifact_not_found', { artifactUid: uid })
  const links = await openLinkSigner(ctx)
  return {
    download_url: links.sign(blobLink(blob.id, text(data.filename) ?? uid)),
    expires_at: links.expiresAt.toISOString(),
    content_type: text(data.mime_type) ?? blob.contentType,
  }
}

/** A file that a person, or a program of theirs, adds to what a run made. */
export async function uploadArtifact(
  ctx: Ctx,
  { query, upload, identity }: { query: UploadArtifactQuery; upload: Upload; identity: Omit<RequestIdentity, 'body'> },
  actor: Actor,
): Promise<UploadArtifactResponse> {
  const { filepath, description } = query
  const filename = filepath.split(/[/\\]/).at(-1) ?? ''
  if (filename === '' || filename === '.' || filename === '..')
    throw new AppError('invalid_request', { problem: 'filepath: names no file.' })
  const { id: runId, teamId } = await runOf(ctx, query, actor)
  const limits = {
    runId,
    maxBytes: maxArtifactBytes,
    tooLarge: () => new AppError('body_too_large', { maxBytes: maxArtifactBytes }),
  }
  const use = async (blob: StoredBlob) => {
    const body = JSON.stringify([query, blob.contentType, blob.sha256.toString('hex')])
    const answer = await doOnce(
      ctx,
      { ...identity, body, owner: actorLabel(actor), route: `artifact.create ${runId}` },
      {
        plan: async () => undefined,
        act: async (tx, hint) => {
          const { contentType: mime_type, sizeBytes: size_bytes, id: blob_id } = blob
          const shown = { artifact_uid: uuidv7(), filepath, mime_type, size_bytes, ...optional({ description }) }
          await appendServerEvents(tx, runId, [
            { type: 'artifact', data: { artifact_type: 'FILE', ...shown, filename, blob_id } },
          ])
          await insertAuditEvent(tx, {
            teamId,
            actor: actorLabel(actor),
            action: 'artifact.create',
            target: `run:${runId}`,
            data: { artifact_uid: shown.artifact_uid },
          })
          hint(`run ${runId}`)
          return { status: 201, body: shown }
        },
      },
    )
    if (answer.isRepeated) await deleteBlob(ctx.db, blob.id)
    return answer.body as UploadArtifactResponse
  }
  return withStoredUpload(ctx, upload, { limits, use })
}

/** Of a conversation it is the newest run. */
async function runOf(
  ctx: Ctx,
  { run_id: runId, conversation_id: conversationId }: UploadArtifactQuery,
  actor: Actor,
): Promise<RunRecord> {
  if ((runId === undefined) === (conversationId === undefined))
    throw new AppError('invalid_request', { problem: 'Give either run_id or conversation_id.' })
  if (runId !== undefined) return requireRun(ctx, runId, actor)
  const last = (await listRunsOfConversation(ctx.db, conversationId ?? '')).findLast((run) => maySee(run, actor))
  if (!last) throw new AppError('conversation_not_found', { conversationId })
  return last
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** What an agent left out, or wrote as something else than text, is left out. */
function optional<Key extends string>(fields: Record<Key, unknown>): { [K in Key]?: string } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => typeof value === 'string')) as {
    [K in Key]?: string
  }
}
