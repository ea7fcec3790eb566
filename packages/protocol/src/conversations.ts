import { z } from 'zod'
import { timestamp } from './timestamps.ts'

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
    /** `denied`: it was stopped, or its turn ended before it; it did not fail by itself. */
    state: z.enum(['running', 'completed', 'failed', 'denied']),
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
  .object({
    conversation_id: z.uuid(),
    title: z.string().optional().describe('A person’s own.'),
    steps: z.array(conversationStep),
  })
  .meta({ id: 'ConversationResponse' })
export type Conversation = z.infer<typeof conversationResponse>

const title = z.string().trim().min(1).max(255)

export const forkConversationRequest = z
  .strictObject({ title: title.optional() })
  .meta({ id: 'ForkConversationRequest' })

export const forkConversationResponse = z
  .object({ forked_conversation_id: z.uuid() })
  .meta({ id: 'ForkConversationResponse' })
export type ForkedConversation = z.infer<typeof forkConversationResponse>

export const renameConversationRequest = z.strictObject({ title }).meta({ id: 'RenameConversationRequest' })

export const conversationTitle = z.object({ conversation_id: z.uuid(), title }).meta({ id: 'ConversationTitle' })
export type ConversationTitle = z.infer<typeof conversationTitle>

/** Where a session that has ended is read now; empty while it lives, and for what there is not. */
export const sessionRedirect = z.object({ conversation_id: z.uuid().optional() }).meta({ id: 'SessionRedirect' })

/** The session at work in a conversation; empty when there is none. */
export const conversationRedirect = z.object({ session_id: z.uuid().optional() }).meta({ id: 'ConversationRedirect' })
