import { z } from 'zod'
import { maxAttachments } from './attachment-limits.ts'

const file_name = z.string().min(1).max(255)
const mime_type = z.string().min(1).max(255)

/** Inline, as base64. */
export const attachmentInput = z
  .strictObject({ file_name, mime_type, data: z.string() })
  .meta({ id: 'AttachmentInput' })
export type AttachmentInput = z.infer<typeof attachmentInput>

export const prepareAttachmentsRequest = z
  .strictObject({
    files: z
      .array(z.strictObject({ filename: file_name, mime_type }))
      .min(1)
      .max(maxAttachments),
  })
  .meta({ id: 'PrepareAttachmentsRequest' })
export type PrepareAttachmentsRequest = z.infer<typeof prepareAttachmentsRequest>

export const prepareAttachmentsResponse = z
  .object({
    attachments: z.array(
      z.object({
        attachment_id: z.uuid(),
        upload_url: z.string().describe('PUT the bytes here within 15 minutes; needs no key.'),
        upload_target: z.object({
          url: z.string(),
          method: z.literal('PUT'),
          headers: z.record(z.string(), z.string()),
        }),
      }),
    ),
  })
  .meta({ id: 'PrepareAttachmentsResponse' })
export type PrepareAttachmentsResponse = z.infer<typeof prepareAttachmentsResponse>

/** Of the PUT that an `upload_url` is for. */
export const uploadAttachmentResponse = z
  .object({ attachment_id: z.uuid(), size_bytes: z.int().min(0) })
  .meta({ id: 'UploadAttachmentResponse' })
export type UploadAttachmentResponse = z.infer<typeof uploadAttachmentResponse>

export const downloadAttachmentsRequest = z
  .strictObject({ attachment_ids: z.array(z.uuid()).min(1).max(100) })
  .meta({ id: 'DownloadAttachmentsRequest' })

export const downloadAttachmentsResponse = z
  .object({ attachments: z.array(z.object({ attachment_id: z.uuid(), download_url: z.string() })) })
  .meta({ id: 'DownloadAttachmentsResponse' })

/** What an ended run left behind, to go on with elsewhere. */
export const handoffAttachmentsResponse = z
  .object({
    attachments: z.array(
      z.object({
        attachment_id: z.string(),
        filename: z.string(),
        download_url: z.string(),
        mime_type: z.string().optional(),
      }),
    ),
  })
  .meta({ id: 'HandoffAttachmentsResponse' })

/** What the agent is told of them at its start. */
export interface RunAttachment {
  attachment_id: string
  file_name: string
  mime_type: string
  size_bytes: number
  blob_id: string
}
