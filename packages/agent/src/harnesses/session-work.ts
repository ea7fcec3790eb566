import type { Tool, ToolContext } from '../tools/tool.ts'
import { encodeCheckpoint } from './checkpoint.ts'
import { type Conversation, say } from './conversation.ts'
import type { HarnessCheckpoint, HarnessContext } from './harness.ts'
import type { ReachableModel } from './language-model.ts'
import type { MessageInbox } from './message-inbox.ts'
import { parametersOf } from './model-step.ts'

/** What a session of the built-in harness works with. One turn at a time has it in its hands. */
export interface SessionWork {
  readonly context: HarnessContext
  readonly model: ReachableModel
  readonly instructions: string
  readonly tools: readonly Tool[]
  readonly toolContext: ToolContext
  readonly inbox: MessageInbox
  /** Of instructions and tools, which every request has. */
  readonly fixedBytes: number
  /** Calls that were stopped for a person and have not ended yet. */
  readonly stillStopping: Set<Promise<unknown>>
  conversation: Conversation
  /** For the model, before its next answer. */
  notes: string[]
  /** What the provider turned out to take, where that is less than was known. */
  learnedWindow: number | undefined
  /** The longest answer that it turned out to give. */
  learnedRoom: number | undefined
}

/** Kept on the disk: what was done until now need not be done again when this process dies. */
export function keep(work: SessionWork): void {
  work.context.keep(checkpointOf(work))
}

/** The conversation as of now, with what its tools must know again. */
export function checkpointOf({ conversation, toolContext }: SessionWork): HarnessCheckpoint {
  const filesSeen = toolContext.state.files.toKeep()
  return encodeCheckpoint({ ...conversation, filesSeen: filesSeen.length > 0 ? filesSeen : undefined })
}

/** Puts before the model what people have said meanwhile, and says that it did. */
export function takeMessages(work: SessionWork): void {
  const messages = work.inbox.takeAll()
  if (messages.length === 0) return
  const texts = messages.map(({ text }) => text)
  const ids = messages.map(({ message_id }) => message_id)
  work.conversation = say(work.conversation, texts, ids)
  for (const { message_id } of messages) {
    work.context.sink.emit({ type: 'message_delivered', data: { message_id } })
  }
}

export function fixedBytesOf(instructions: string, tools: readonly Tool[], limits: HarnessContext['limits']): number {
  const described = tools.map((tool) => [tool.name, tool.describe(limits), parametersOf(tool.input)])
  return Buffer.byteLength(instructions) + Buffer.byteLength(JSON.stringify(described))
}
