import { z } from 'zod'

/** A conversation in the reference's shape: a step per turn, with what was said, called and answered in it. Made from the session log. */

const textBlock = z.object({ type: z.literal('text'), text: z.string() }).meta({ id: 'TextContentBlock' })
const actionBlock = z
  .object({
    type: z.literal('action'),
    id: z.string(),
    category: z.string(),
    name: z.string(),
    input: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'ActionContentBlock' })
const actionResultBlock = z
  .object({
    type: z.literal('action_result'),
    action_id: z.string(),
    category: z.string(),
    name: z.string(),
    state: z.enum(['completed', 'failed', 'cancelled']),
    output: z.unknown(),
  })
  .meta({ id: 'ActionResultContentBlock' })
const eventBlock = z
  .object({ type: z.literal('event'), name: z.string(), data: z.record(z.string(), z.unknown()) })
  .meta({ id: 'EventContentBlock' })

const contentBlock = z
  .discriminatedUnion('type', [textBlock, actionBlock, actionResultBlock, eventBlock])
  .meta({ id: 'ConversationContentBlock' })
export type ConversationContentBlock = z.infer<typeof contentBlock>

const timestamp = z.iso.datetime({ offset: true }).describe('RFC 3339, UTC')

const conversationMessage = z
  .object({
    message_ids: z.array(z.string()).optional(),
    role: z.enum(['user', 'assistant', 'tool', 'system']),
    timestamp: timestamp.optional(),
    content: z.array(contentBlock),
  })
  .meta({ id: 'ConversationMessage' })
export type ConversationMessage = z.infer<typeof conversationMessage>

const conversationStep = z
  .object({
    id: z.string(),
    description: z.string().optional(),
    summary: z.string().optional(),
    started_at: timestamp.optional(),
    completed_at: timestamp.optional(),
    messages: z.array(conversationMessage),
    /** Steps of child agents; empty. */
    steps: z.array(z.unknown()),
  })
  .meta({ id: 'ConversationStep' })
export type ConversationStep = z.infer<typeof conversationStep>

export const conversationResponse = z
  .object({ conversation_id: z.uuid(), steps: z.array(conversationStep) })
  .meta({ id: 'ConversationResponse' })
export type Conversation = z.infer<typeof conversationResponse>
