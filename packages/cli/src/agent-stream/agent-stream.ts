import type { AgentEvent } from '@openoz/protocol'

/**
 * What `oz agent run` prints of a run while it works. It is made of the agent's own events, as they are kept for the control plane (masked and
 * merged), so that it goes on while the control plane is away.
 */
export interface AgentStream {
  started(run: StartedRun): void
  event(event: AgentEvent): void
  finished(end: RunEnd): void
}

export interface StartedRun {
  runId: string
  runUrl: string
  conversationId: string
  /** Somebody was given access with `--share`. */
  isShared: boolean
}

export interface RunEnd {
  runId: string
  conversationId: string
  state: string
  message: string
}

/** Said after `--share`. */
export const sharesWait = 'The share is stored; it takes effect once people can sign in to this control plane.'
