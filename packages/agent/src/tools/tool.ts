import type { AgentLimits, SessionEventData } from '@openoz/protocol'
import type { z } from 'zod'
import type { CallContext } from './call-context.ts'
import type { ToolState } from './tool-state.ts'

/** Something that the model can do. One file per tool; `tools.ts` lists them. */
export interface Tool<Input = unknown> {
  readonly name: string
  readonly kind: SessionEventData['tool_call']['kind']
  /** For the model: what it does, where, within which limits. */
  describe(limits: AgentLimits): string
  readonly input: z.ZodType<Input>
  /** One line for people. */
  title(input: Input): string
  locations?(input: Input, context: ToolContext): { path: string }[]
  /**
   * Does it. A failure that the model can act on is a result with `isError`, or a thrown Error whose message says what to do. Rejects with the
   * signal's reason once everything that it started has ended.
   */
  run(input: Input, call: ToolCall): Promise<ToolOutput>
}

export interface ToolContext extends CallContext {
  /** What outlives one call: running commands, which files were read. */
  state: ToolState
}

export interface ToolCall extends ToolContext {
  id: string
  signal: AbortSignal
  /**
   * What the model and the viewers get if this call is stopped, in place of the mere fact; the last one counts. To be called when the signal is
   * aborted, since nobody may wait for more, and again once more is known, before the call rejects.
   */
  answerIfStopped?: (output: ToolOutput) => void
}

export interface ToolOutput {
  /** What the model reads, as JSON. */
  result: Record<string, unknown>
  /** Pictures that belong to the result, for models that see. */
  images?: { mediaType: string; data: Uint8Array }[]
  isError?: boolean
  /** The turn ends here, as BLOCKED, with this question to a person. */
  question?: string
  /** What viewers see; the result as text where absent. */
  content?: SessionEventData['tool_call_update']['content']
  /** The part of the result that `content` does not hold, for programs; the whole result where absent. */
  shown?: Record<string, unknown>
  blobId?: string
}
