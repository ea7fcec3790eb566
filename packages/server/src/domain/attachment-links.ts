import {
  AppError,
  maxAttachmentBytes,
  maxAttachmentsOfRun,
  type PrepareAttachmentsRequest,
  type PrepareAttachmentsResponse,
  type UploadAttachmentResponse,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import {
  type AttachmentRecord,
  findAttachment,
  insertAttachment,
  listAttachments,
  updateAttachmentBlob,
} from '../store/attachments.ts'
import { insertAuditEvent } from '../store/audit-events.ts'
import { deleteBlob, haveSameBytes, type StoredBlob } from '../store/blobs.ts'
import { findLastWorkspace } from '../store/checkpoints.ts'
import type { Tx } from '../store/database.ts'
import { findRun, findRunForUpdate } from '../store/runs.ts'
import { type Actor, actorLabel } from './actors.ts'
import { attachmentTooLarge, fileNameOf, freeName } from './attachments.ts'
import { type Ctx, change } from './context.ts'
import { blobLink } from './downloads.ts'
import { doOnce, type RequestIdentity } from './idempotency.ts'
import { requireRun } from './runs.ts'
import { type LinkTarget, openLinkSigner, requireSignedLink } from './signed-links.ts'
import { type Upload, usableContentType, withStoredUpload } from './uploads.ts'

/** Names files for a run whose bytes are then uploaded by links. A repeated request gets fresh links to the same attachments. */
export async function prepareAttachments(
  ctx: Ctx,
  { runId, request, identity }: { runId: string; request: PrepareAttachmentsRequest; identity: RequestIdentity },
  actor: Actor,
): Promise<PrepareAttachmentsResponse> {
  const run = await requireRun(ctx, runId, actor)
  const files = request.files.map(({ filename, mime_type }) => ({
    name: fileNameOf(filename),
    mimeType: usableContentType(mime_type),
  }))
  const answer = await doOnce(
    ctx,
    { ...identity, owner: actorLabel(actor), route: `attachments.prepare ${run.id}` },
    {
      plan: async () => undefined,
      act: async (tx) => {
        // One at a time: names are looked for and then taken.
        await findRunForUpdate(tx, run.id)
        const before = await listAttachments(tx, run.id)
        if (before.length + files.length > maxAttachmentsOfRun)
          throw new AppError('invalid_request', {
            problem: `Run ${run.id} would have ${before.length + files.length} attachments; at most ${maxAttachmentsOfRun} are taken.`,
          })
        const taken = new Set(before.map(({ fileName }) => fileName.toLowerCase()))
        const prepared: PreparedAttachment[] = []
        for (const { name, mimeType } of files) {
          const id = uuidv7()
          await insertAttachment(tx, { id, runId: run.id, fileName: freeName(name, taken), mimeType })
          prepared.push({ id, mimeType })
        }
        await insertAuditEvent(tx, {
          teamId: run.teamId,
          actor: actorLabel(actor),
          action: 'attachment.prepare',
          target: `run:${run.id}`,
          data: { attachment_ids: prepared.map(({ id }) => id) },
        })
        return { status: 200, body: prepared }
      },
    },
  )
  const links = await openLinkSigner(ctx)
  return {
    attachments: (answer.body as PreparedAttachment[]).map(({ id, mimeType }) => {
      const url = links.sign(uploadOf(id))
      const upload_target = { url, method: 'PUT' as const, headers: { 'content-type': mimeType } }
      return { attachment_id: id, upload_url: url, upload_target }
    }),
  }
}

interface PreparedAttachment {
  id: string
  mimeType: string
}

const uploadOf = (id: string): LinkTarget => ({ method: 'PUT', path: `/agent/attachments/${id}` })

/**
 * Where such a link leads. An agent may know of the bytes already, so others are refused (`attachment_uploaded`); the same ones, sent again because
 * the answer was lost, are not.
 */
export async function uploadAttachment(
  ctx: Ctx,
  { id, ...link }: { id: string; expires: string | undefined; signature: string | undefined },
  upload: Upload,
): Promise<UploadAttachmentResponse> {
  await requireSignedLink(ctx, uploadOf(id), link)
  const attachment = await findAttachment(ctx.db, id)
  if (!attachment) throw new AppError('link_invalid')
  const { runId, fileName, mimeType } = attachment
  const limits = {
    runId,
    maxBytes: maxAttachmentBytes,
    tooLarge: () => attachmentTooLarge(fileName, upload.contentLength ?? `more than ${maxAttachmentBytes}`),
  }
  const use = async (blob: StoredBlob) => {
    await change(ctx, async (tx) => {
      if (await updateAttachmentBlob(tx, id, blob)) return auditUpload(tx, attachment)
      const { blobId } = (await findAttachment(tx, id)) ?? {}
      if (!blobId || !(await haveSameBytes(tx, blobId, blob.id)))
        throw new AppError('attachment_uploaded', { name: fileName, runId })
      await deleteBlob(tx, blob.id)
    })
    return { attachment_id: id, size_bytes: blob.sizeBytes }
  }
  return withStoredUpload(ctx, { ...upload, contentType: mimeType }, { limits, use })
}

/** Whoever has the link is who it is. */
async function auditUpload(tx: Tx, { id, runId }: AttachmentRecord): Promise<void> {
  const run = await findRun(tx, runId)
  await insertAuditEvent(tx, {
    teamId: run?.teamId ?? null,
    actor: 'link',
    action: 'attachment.upload',
    target: `run:${runId}`,
    data: { attachment_id: id },
  })
}

/** Links to attachments of a run. One that is not there, or was never uploaded, is `attachment_not_found`. */
export async function attachmentLinks(ctx: Ctx, runId: string, ids: string[], actor: Actor) {
  const run = await requireRun(ctx, runId, actor)
  const known = new Map((await listAttachments(ctx.db, run.id)).map((attachment) => [attachment.id, attachment]))
  const links = await openLinkSigner(ctx)
  return ids.map((id) => {
    const { blobId, fileName } = known.get(id.toLowerCase()) ?? {}
    if (!blobId || fileName === undefined)
      throw new AppError('attachment_not_found', { runId: run.id, attachmentId: id })
    return { attachment_id: id, download_url: links.sign(blobLink(blobId, fileName)) }
  })
}

/** What a run left behind, as last saved: a bundle and a diff for each repository. Empty where nothing was saved. */
export async function handoffAttachments(ctx: Ctx, runId: string, actor: Actor) {
  const run = await requireRun(ctx, runId, actor)
  const saved = await findLastWorkspace(ctx.db, run.id)
  const links = await openLinkSigner(ctx)
  const taken = new Set<string>()
  return (saved?.repositories ?? []).flatMap(({ dir, bundle_blob_id, diff_blob_id }) => {
    const name = dir === '.' ? 'workspace' : dir.replaceAll(/[/\\]/g, '-')
    return [
      { blobId: bundle_blob_id, ending: 'bundle', mime_type: 'application/octet-stream' },
      { blobId: diff_blob_id, ending: 'diff', mime_type: 'text/plain' },
    ].flatMap(({ blobId, ending, mime_type }) => {
      if (blobId === null) return []
      const filename = freeName(`${name}.${ending}`, taken)
      return [{ attachment_id: blobId, filename, download_url: links.sign(blobLink(blobId, filename)), mime_type }]
    })
  })
}
