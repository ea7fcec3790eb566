import { AppError, maxInlineAttachmentsBytes } from '@openoz/protocol'
import type { MiddlewareHandler } from 'hono'
import { bodyLimit } from 'hono/body-limit'

/** Prompts have a limit of their own below this one, so that they are refused in words about prompts. */
export const maxBodyBytes = 8 * 1024 * 1024

/** Of the requests that start runs: attachments are base64, some of it with line breaks. They too have a limit of their own below this one. */
export const maxBodyWithAttachmentsBytes = maxBodyBytes + Math.ceil(((maxInlineAttachmentsBytes * 4) / 3) * 1.1)

/** Throws `body_too_large`. A body of unknown length is read as far as the limit. */
export function limitBody(maxBytes: number): MiddlewareHandler {
  return bodyLimit({
    maxSize: maxBytes,
    onError: () => {
      throw new AppError('body_too_large', { maxBytes })
    },
  })
}

/**
 * Routes that are not limited before it is known who asks: `describe` does it for those that take attachments. Blobs, artifacts and uploaded
 * attachments are streams, and a batch of the agent channel must never be refused.
 */
export function limitsItself(path: string): boolean {
  return path.includes('/agent-channel/') || /\/agent\/(run|runs|local-runs|artifacts|attachments\/[^/]+)$/.test(path)
}
