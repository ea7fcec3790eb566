import {
  AppError,
  type CreateRunRequest,
  maxAttachmentBytes,
  maxAttachments,
  maxInlineAttachmentsBytes,
} from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { insertAttachment } from '../store/attachments.ts'
import { insertBytes } from '../store/blobs.ts'
import type { Tx } from '../store/database.ts'
import { storableText } from './session-log.ts'
import { usableContentType } from './uploads.ts'

/**
 * Files that people give a run to work with: inline in the request that starts it, or uploaded afterwards by a link (`attachment-links.ts`). They are the run's, so its
 * agent is told of them with its hello and with each turn, and they go with the run. A fork begins without them.
 */

export interface PlannedAttachment {
  fileName: string
  mimeType: string
  bytes: Buffer
}

/** Throws `attachment_invalid` or `attachment_too_large`, before anything is stored. */
export function planAttachments({ attachments = [], images = [] }: CreateRunRequest): PlannedAttachment[] {
  const files = [
    ...attachments.map(({ file_name, mime_type, data }) => ({ name: file_name, mime_type, data })),
    ...images.map(({ mime_type, data }, at) => ({
      name: `image-${at + 1}.${mime_type.slice('image/'.length).replace('jpeg', 'jpg')}`,
      mime_type,
      data,
    })),
  ]
  if (files.length > maxAttachments)
    throw new AppError('invalid_request', {
      problem: `The request has ${files.length} attachments and images; at most ${maxAttachments} are taken.`,
    })
  const taken = new Set<string>()
  let total = 0
  return files.map(({ name, mime_type, data }) => {
    const bytes = bytesOf(name, data)
    total += bytes.byteLength
    if (total > maxInlineAttachmentsBytes)
      throw new AppError('attachment_too_large', {
        name: `${name}, together with those before it,`,
        bytes: total,
        maxBytes: maxInlineAttachmentsBytes,
      })
    return { fileName: freeName(fileNameOf(name), taken), mimeType: usableContentType(mime_type), bytes }
  })
}

/** A third more characters than bytes, and room for line breaks. */
const maxEncodedLength = Math.ceil((maxAttachmentBytes * 4) / 3) * 1.1

/** Line breaks are taken: many programs put them into base64. The decoder would skip over everything else that is none. */
function bytesOf(name: string, data: string): Buffer {
  if (data.length > maxEncodedLength) throw attachmentTooLarge(name, Buffer.byteLength(data, 'base64'))
  const encoded = data.replaceAll(/\s+/g, '')
  const unpadded = encoded.replace(/={1,2}$/, '')
  // No number of bytes has one character more than a multiple of four.
  if (!/^[A-Za-z0-9+/]*$/.test(unpadded) || unpadded.length % 4 === 1)
    throw new AppError('attachment_invalid', { name, problem: 'it is not base64.' })
  const bytes = Buffer.from(unpadded, 'base64')
  if (bytes.byteLength > maxAttachmentBytes) throw attachmentTooLarge(name, bytes.byteLength)
  return bytes
}

export function attachmentTooLarge(name: string, bytes: number | string): AppError {
  return new AppError('attachment_too_large', { name, bytes, maxBytes: maxAttachmentBytes })
}

/** File systems take 255 bytes; a number may be added. */
const maxNameBytes = 240

/** The name without folders. Throws for what can be none: it becomes a file on the agent's machine, and a word of what its model is told. */
export function fileNameOf(text: string): string {
  const name = storableText(text.split(/[/\\]/).at(-1) ?? '').trim()
  const problem =
    name === '' || name === '.' || name === '..'
      ? 'its name is none.'
      : // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
        /[\u0000-\u001f\u007f\ufffd]/.test(name)
        ? 'its name has control characters.'
        : Buffer.byteLength(name) > maxNameBytes
          ? `its name has more than ${maxNameBytes} bytes.`
          : undefined
  if (problem !== undefined) throw new AppError('attachment_invalid', { name: JSON.stringify(text), problem })
  return name
}

/** `notes.txt`, `notes-2.txt`, … Names that differ in case only are one to some file systems. */
export function freeName(name: string, taken: Set<string>): string {
  const dot = name.lastIndexOf('.')
  const [stem, ending] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, '']
  let free = name
  for (let number = 2; taken.has(free.toLowerCase()); number++) free = `${stem}-${number}${ending}`
  taken.add(free.toLowerCase())
  return free
}

/** In the transaction that makes the run: no agent sees one without the other. */
export async function storeAttachments(tx: Tx, runId: string, attachments: PlannedAttachment[]): Promise<void> {
  for (const { fileName, mimeType, bytes } of attachments) {
    const blobId = uuidv7()
    await insertBytes(tx, { id: blobId, runId, executionId: null, contentType: mimeType }, bytes)
    const blob = { id: blobId, sizeBytes: bytes.byteLength }
    await insertAttachment(tx, { id: uuidv7(), runId, fileName, mimeType }, blob)
  }
}
