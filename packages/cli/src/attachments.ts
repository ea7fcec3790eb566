import { readFile, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import {
  AppError,
  type AttachmentInput,
  maxAttachmentBytes,
  maxAttachments,
  maxInlineAttachmentsBytes,
} from '@openoz/protocol'
import { fileType } from './file-types.ts'

/** What `--attach` names, ready to be sent. Throws `flag_invalid` for what the server would refuse, before anything is sent. */
export async function readAttachments(paths: readonly string[]): Promise<AttachmentInput[]> {
  if (paths.length > maxAttachments)
    throw invalid(`${paths.length} files are named; at most ${maxAttachments} can be attached`)
  let total = 0
  // All are looked at before the first is read.
  for (const path of paths) {
    const size = await sizeOf(path)
    if (size > maxAttachmentBytes) throw invalid(`${path} has ${size} bytes; at most ${maxAttachmentBytes} are taken`)
    total += size
  }
  if (total > maxInlineAttachmentsBytes)
    throw invalid(`the files have ${total} bytes together; at most ${maxInlineAttachmentsBytes} are taken`)
  const attachments: AttachmentInput[] = []
  for (const path of paths) {
    const data = await readFile(path, 'base64').catch((error: Error) => {
      throw invalid(error.message, error)
    })
    attachments.push({ file_name: basename(path), mime_type: fileType(path), data })
  }
  return attachments
}

async function sizeOf(path: string): Promise<number> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw invalid(error.code === 'ENOENT' ? `${path} does not exist` : error.message, error)
  })
  if (!found.isFile()) throw invalid(`${path} is no regular file`)
  return found.size
}

function invalid(problem: string, cause?: Error): AppError {
  return new AppError('flag_invalid', { option: '--attach', problem }, { cause })
}
