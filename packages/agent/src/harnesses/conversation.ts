import type { ModelMessage, ToolResultPart } from 'ai'
import { z } from 'zod'
import type { CallResult, RequestedCall } from '../tools/tool-call.ts'
import type { HarnessCheckpoint } from './harness.ts'

/** How checkpoints of the built-in harness are written. A new shape gets a new name; the old one stays readable. */
const checkpointFormat = 'oz-messages-1'

/** What the model remembers, and how far it came. Plain data: this is what a checkpoint holds. */
export interface Conversation {
  /** The turn whose prompt is the last one in `messages`. */
  turnId: string
  /** Finished steps of that turn. */
  turnSteps: number
  /** Finished steps of the conversation; numbers checkpoints. */
  step: number
  /** The last message is the turn's answer: nothing is left to do. */
  isAnswered: boolean
  messages: ModelMessage[]
}

const stored = z.object({
  turnId: z.string(),
  turnSteps: z.int().min(0),
  step: z.int().min(0),
  isAnswered: z.boolean(),
  messages: z.array(z.looseObject({ role: z.enum(['user', 'assistant', 'tool']) })),
})

export function encodeCheckpoint(conversation: Conversation): HarnessCheckpoint {
  return { format: checkpointFormat, step: conversation.step, data: Buffer.from(JSON.stringify(conversation)) }
}

/** Throws when it cannot be read; then the turn must begin anew. */
export function decodeCheckpoint({ format, data }: HarnessCheckpoint): Conversation {
  if (format !== checkpointFormat) throw new Error(`the checkpoint is of an unknown format (${format})`)
  const value = stored.parse(JSON.parse(Buffer.from(data).toString('utf8')))
  // Each message was made by the library that will read it again.
  return { ...value, messages: value.messages as unknown as ModelMessage[] }
}

/** Tool results as a message. Failures are results like others, with an `error` in them: wires differ too much in how they mark one. */
export function toolMessage(results: readonly CallResult[]): ModelMessage {
  const content = results.map(
    ({ id, tool, result }): ToolResultPart => ({
      type: 'tool-result',
      toolCallId: id,
      toolName: tool,
      output: { type: 'text', value: JSON.stringify(result) },
    }),
  )
  return { role: 'tool', content }
}

/**
 * The result of a call that was stopped. Providers refuse a conversation in which a call has none, so without it a turn that was stopped in the
 * middle of its tools could never be continued.
 */
export function stoppedCall({ id, tool }: RequestedCall): CallResult {
  return {
    id,
    tool,
    result: { error: 'This call was stopped before it ended. What it had done until then is unknown.' },
  }
}
