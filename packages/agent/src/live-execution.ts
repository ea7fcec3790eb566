import type { Dialer, EventSender, Masker } from '@openoz/machine'
import type { HelloResponse, TurnInput } from '@openoz/protocol'
import type { RunAgentOptions } from './agent-options.ts'
import type { Attachments } from './attachments.ts'
import type { AgentChannel } from './channel.ts'
import type { EventLog } from './event-log.ts'
import type { HarnessCheckpoint, HarnessSession } from './harnesses/harness.ts'
import type { KeptWork } from './kept-work.ts'
import type { Lease } from './lease.ts'
import type { StopSwitch } from './stop-switch.ts'
import type { TurnMessages } from './turn-messages.ts'
import type { WakeCalls } from './wake-calls.ts'
import type { Workspace } from './workspace/prepare.ts'

/** What an execution is given. */
export interface Execution extends RunAgentOptions {
  hello: HelloResponse
  channel: AgentChannel
  dialer: Dialer
  /** When the agent began; its hello was the first step. */
  startedAt: Date
  /** When the hello was sent that was answered, on `bootClockMs`. */
  helloSentAt: number
}

/** A harness at the execution's conversation, in its workspace. */
export interface OpenSession {
  session: HarnessSession
  /** The harness's name. */
  harness: string
  /** Ends what the session started, and its way to the model. Never rejects. */
  close(): Promise<void>
}

/** An execution while it lives: what its turns share. */
export interface LiveExecution extends Execution {
  events: EventLog
  sender: EventSender
  masker: Masker
  stop: StopSwitch
  lease: Lease
  messages: TurnMessages
  calls: WakeCalls
  attachments: Attachments
  kept: KeptWork
  /** What git, setup commands and tools inherit. */
  taskEnv: NodeJS.ProcessEnv
  /** Set once there is something to save. */
  workspace: Workspace | undefined
  /** Set once the harness is open; it stays so for all turns. */
  session: OpenSession | undefined
  /** The conversation with turns that ended before the harness could be opened. */
  remembered: HarnessCheckpoint | undefined
  /** Messages to the turn at work that are in a checkpoint which was said. */
  sentMessages: Set<string>
  /** What this machine knows and the control plane does not, or may not. */
  unsaved: Set<'workspace' | 'checkpoint'>
  /** The turn that has no outcome yet. */
  openTurn: TurnInput | undefined
  /** The control plane was asked for the next turn: who is given one, and dies before the answer, owes it. */
  isAsking: boolean
  /** It has said goodbye: that nobody wants to hear of it any more is no surprise then. */
  isLeaving: boolean
}
