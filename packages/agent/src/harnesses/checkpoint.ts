import { AppError } from '@openoz/protocol'
import type { ModelMessage } from 'ai'
import { z } from 'zod'
import { shortened } from '../live-output.ts'
import { type Conversation, newConversation } from './conversation.ts'
import type { HarnessCheckpoint } from './harness.ts'

/**
 * How conversations of the built-in harness are kept. A new shape gets a new name, and every old one stays readable: a conversation may be taken
 * up again after years.
 */
const format = 'oz-messages-2'
const firstFormat = 'oz-messages-1'

const message = z.looseObject({ role: z.enum(['user', 'assistant', 'tool']) })
const result = z.looseObject({ id: z.string(), tool: z.string(), result: z.record(z.string(), z.unknown()) })

const storedFirst = z.object({
  turnId: z.string(),
  turnSteps: z.int().min(0),
  step: z.int().min(0),
  isAnswered: z.boolean(),
  messages: z.array(message),
})

const stored = storedFirst.extend({
  turnOutputTokens: z.int().min(0),
  turnMs: z.number().min(0),
  takenMessageIds: z.array(z.string()),
  question: z.string().optional(),
  reported: z.object({ tokens: z.number(), messages: z.int() }).optional(),
  rulesShown: z.array(z.string()),
  filesSeen: z.array(z.tuple([z.string(), z.string()])).optional(),
  compacted: z.object({ said: z.array(z.string()), summary: z.string() }).optional(),
  unfinished: z
    .object({
      answer: z.array(message),
      calls: z.array(z.object({ id: z.string(), tool: z.string(), input: z.unknown() })),
      results: z.array(result),
    })
    .optional(),
})

/** Messages are never changed, and there is a checkpoint after every call: each is written out once. */
const written = new WeakMap<object, string>()

function write(value: object): string {
  const known = written.get(value)
  if (known !== undefined) return known
  const text = JSON.stringify(value)
  written.set(value, text)
  return text
}

export function encodeCheckpoint(conversation: Conversation): HarnessCheckpoint {
  const { messages, ...rest } = conversation
  const head = JSON.stringify(rest).slice(0, -1)
  const data = Buffer.from(`${head},"messages":[${messages.map(write).join(',')}]}`)
  return { format, step: conversation.step, data, takenMessageIds: conversation.takenMessageIds }
}

/** Throws `conversation_unreadable`. */
export function decodeCheckpoint(checkpoint: Pick<HarnessCheckpoint, 'format' | 'data'>): Conversation {
  if (checkpoint.format !== format && checkpoint.format !== firstFormat) {
    throw new AppError('conversation_unreadable', { format: checkpoint.format, problem: 'an unknown format' })
  }
  try {
    const value: unknown = JSON.parse(Buffer.from(checkpoint.data).toString('utf8'))
    // Each message was made by the library that will read it again.
    if (checkpoint.format === format) return stored.parse(value) as unknown as Conversation
    const { messages, ...first } = storedFirst.parse(value)
    return { ...newConversation(), ...first, messages: messages as unknown as ModelMessage[] }
  } catch (error) {
    const problem = error instanceof z.ZodError ? z.prettifyError(error) : 'it is no JSON'
    throw new AppError('conversation_unreadable', { format: checkpoint.format, problem: shortened(problem, 200) })
  }
}
