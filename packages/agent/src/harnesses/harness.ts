import type { Masker } from '@openoz/machine'
import type { AgentLimits, AmbientAgentConfig, ModelAccess, TurnOutcome } from '@openoz/protocol'
import type { Logger } from 'pino'
import type { EventSink } from '../event-sink.ts'
import type { Workspace } from '../workspace/prepare.ts'

/** A program that thinks: the built-in one, or a third-party agent behind the Agent Client Protocol. One file per kind. */
export interface Harness {
  readonly name: string
  /**
   * Makes a conversation ready for its first prompt, or takes up the one in `context.checkpoint`. Rejects with an AppError when it cannot
   * (no such program, a checkpoint of another format); nothing is left running then.
   */
  open(context: HarnessContext): Promise<HarnessSession>
}

export interface HarnessSession {
  /** The conversation holds the prompt of `context.turnId` already: an earlier execution of the run had asked it. */
  readonly isMidTurn: boolean
  /**
   * One turn: resolves when the agent rests, with the turn's outcome. What the agent says and does goes to `context.sink` in ACP shapes
   * before that. Failures of the model or of the harness are outcomes; rejects only with the signal's reason, after tools have ended.
   * Without a text it goes on with the turn that it is in the middle of. Not to be called while another prompt runs.
   */
  prompt(text: string | undefined, signal: AbortSignal): Promise<TurnResult>
  /** Stops the running prompt as its signal would; the conversation stays usable. Resolves when it rests. Safe to call when nothing runs. */
  cancel(): Promise<void>
  /** The conversation as of the last finished step; null while there is nothing to go on from. Never rejects. */
  checkpoint(): Promise<HarnessCheckpoint | null>
  /** Ends everything that the session started. Never rejects; safe to call twice. */
  close(): Promise<void>
}

/** Everything that a harness gets to know. It reaches the control plane through nothing else. */
export interface HarnessContext {
  runId: string
  turnId: string
  config: AmbientAgentConfig
  model: ModelAccess
  limits: AgentLimits
  workspace: Workspace
  /** What tools inherit: without our keys, with the execution's marker. */
  env: NodeJS.ProcessEnv
  sink: EventSink
  gateway: ModelGateway
  checkpoint: HarnessCheckpoint | undefined
  /** What the model must know beside its prompt: that the machine was replaced, and what came back. Put into the conversation, before its next answer. */
  notes: string[]
  /** To be awaited after each finished step: saves `checkpoint()` behind the step's events. Rejects when the execution is over. */
  stepFinished: () => Promise<void>
  /** Keeps the whole of a large output and returns its id; undefined when that fails. */
  keepOutput: (file: string) => Promise<string | undefined>
  masker: Masker
  log: Logger
}

/** The control plane's model gateway. `path` begins with `/`; the token is the key of this execution. */
export interface ModelGateway {
  fetch: (path: string, init: RequestInit) => Promise<Response>
  token: string
}

export interface HarnessCheckpoint {
  /** Names how `data` is to be read; a harness refuses what it does not know. */
  format: string
  step: number
  data: Uint8Array
}

export interface TurnResult {
  outcome: TurnOutcome
  /** For people: the agent's last words, or why it ended. */
  message: string
  /** Code of the error registry, or a platform code. */
  errorCode?: string
}
