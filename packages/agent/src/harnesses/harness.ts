import type { Masker } from '@openoz/machine'
import type {
  AgentLimits,
  AmbientAgentConfig,
  ModelAccess,
  RunMode,
  TurnInput,
  TurnMessage,
  TurnOutcome,
} from '@openoz/protocol'
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
  /**
   * The conversation in `context.checkpoint` with a turn that ended before it could be opened: its text is in it for the next turn, its messages
   * are not. undefined when it knows the turn already. Throws an AppError for a checkpoint of another format.
   */
  remember(turn: TurnInput, context: RememberContext): HarnessCheckpoint | undefined
}

/** All that there is when nothing could be prepared. */
export interface RememberContext extends Pick<HarnessContext, 'checkpoint' | 'sink'> {
  model: ModelAccess | null
}

/**
 * One conversation. Turns come one after the other; while one is at work people may speak into it.
 *
 * `steer` and `interrupt` may come at any time, also just as a turn ends: a message that the turn did not take up is not lost, since the control
 * plane hears with each checkpoint which ones are in it (`takenMessageIds`), and makes a turn of the others.
 */
export interface HarnessSession {
  /**
   * One turn: resolves when the agent rests, with the turn's outcome. What the agent says and does goes to `context.sink` in ACP shapes
   * before that. Failures of the model or of the harness are outcomes; rejects only with the signal's reason, after tools have ended.
   * A turn that the conversation is in the middle of (an earlier execution had begun it) is gone on with: its text is not asked again.
   * Not to be called while another prompt runs.
   */
  prompt(turn: TurnInput, signal: AbortSignal): Promise<TurnResult>
  /** Puts a message before the model at the next safe boundary. Ignored when no prompt runs. Says so by `message_delivered` once it is there. */
  steer(message: TurnMessage): void
  /** The same, but what runs now (the model's answer, tools) is stopped for it first. */
  interrupt(message: TurnMessage): void
  /** Stops the running prompt as its signal would; the conversation stays usable. Resolves when it rests. Safe to call when nothing runs. */
  cancel(): Promise<void>
  /** Ends what tools have left running, and keeps what it had said. Everything stays usable. Never rejects. */
  endBackground(): Promise<void>
  /** The conversation as of the last finished step; null while there is nothing to go on from. Never rejects. */
  checkpoint(): Promise<HarnessCheckpoint | null>
  /** Ends everything that the session started, within `closeGraceMs`. Never rejects; safe to call twice. */
  close(): Promise<void>
}

/** A harness that hangs must not keep the process: nobody waits longer for its end. A process that was asked to stop is killed after 10 s. */
export const closeGraceMs = 5_000

/** Everything that a harness gets to know. It reaches the control plane through nothing else. */
export interface HarnessContext {
  runId: string
  config: AmbientAgentConfig
  mode: RunMode
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
  /**
   * Keeps on the local disk what a next execution shall go on from if this process dies now. To be called whenever something was done that must
   * not be done twice: an answer of the model, a tool's result. Quick, never throws.
   */
  keep: (checkpoint: HarnessCheckpoint) => void
  /** To be awaited after each finished step: saves `checkpoint()` behind the step's events. Rejects when the execution is over. */
  stepFinished: () => Promise<void>
  /** Keeps a file (the whole of a large output, an artifact) and returns its id; undefined when that fails. Without a media type it is text in UTF-8. */
  keepOutput: (file: string, mediaType?: string) => Promise<string | undefined>
  /** A folder that goes with this task, also when this process is killed. Default: the system's temporary folder. */
  scratchFolder?: string
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
  /** Messages of the turn at work that are in it. */
  takenMessageIds: string[]
}

export interface TurnResult {
  outcome: TurnOutcome
  /** For people: the agent's last words, or why it ended. */
  message: string
  /** Code of the error registry, or a platform code. */
  errorCode?: string
}
