import { z } from 'zod'
import { queryFlag } from './query-flag.ts'
import { instant, timestamp } from './timestamps.ts'

/** A message from one run to others. What people say to a run is a follow-up (`runs.ts`). */
export const sendMessageRequest = z
  .strictObject({
    /** Runs; one that is named twice gets it once. */
    to: z.array(z.uuid()).min(1).max(100),
    subject: z.string().min(1).max(1024),
    body: z.string().max(131_072),
    sender_run_id: z.uuid(),
  })
  .meta({ id: 'SendMessageRequest' })
export type SendMessageRequest = z.infer<typeof sendMessageRequest>

export const sendMessageResponse = z
  .object({ message_ids: z.array(z.uuid()).describe('In the order of `to`.') })
  .meta({ id: 'SendMessageResponse' })
export type SendMessageResponse = z.infer<typeof sendMessageResponse>

export const messageHeader = z
  .object({
    message_id: z.uuid(),
    sender_run_id: z.uuid(),
    subject: z.string(),
    sent_at: timestamp,
    delivered_at: timestamp.nullable(),
    read_at: timestamp.nullable(),
  })
  .meta({ id: 'MessageHeader' })
export type MessageHeader = z.infer<typeof messageHeader>

export const fullMessage = messageHeader.extend({ body: z.string() }).meta({ id: 'Message' })
export type FullMessage = z.infer<typeof fullMessage>

export const listMessagesQuery = z.strictObject({
  unread: queryFlag,
  since: instant.optional(),
  limit: z.coerce.number().int().min(1).max(100).default(50),
})
export type ListMessagesQuery = z.infer<typeof listMessagesQuery>
