/**
 * The states of runs, executions and turns, and what each state allows. Server, CLI and dashboard all ask these tables; nobody keeps a
 * list of states of their own. Architecture in prose: `docs/the-life-of-a-run.md`.
 */

/** As on the wire of the published SDKs. FAILED is the user's side, ERROR is ours, BLOCKED waits for a person. */
export const runStates = [
  'QUEUED',
  'PENDING',
  'CLAIMED',
  'INPROGRESS',
  'SUCCEEDED',
  'FAILED',
  'ERROR',
  'BLOCKED',
  'CANCELLED',
] as const
export type RunState = (typeof runStates)[number]

/** How a turn can end. BLOCKED ends the turn but not the run: it waits for a follow-up. */
export const turnOutcomes = ['SUCCEEDED', 'FAILED', 'ERROR', 'BLOCKED', 'CANCELLED'] as const
export type TurnOutcome = (typeof turnOutcomes)[number]

/** One attempt at a run on one worker. `ended` and `lost` are final; everything before is live. */
export const executionStates = ['offered', 'claimed', 'running', 'idle', 'ended', 'lost'] as const
export type ExecutionState = (typeof executionStates)[number]

/**
 * Which state may follow which. Back to QUEUED: an offer was rejected, an execution is retried, or a follow-up came. SUCCEEDED straight from
 * PENDING or CLAIMED: a worker reported the end of an agent that never spoke on the channel. An outcome from where the next try waits or is about to
 * begin: what the try before it had reached came after it was given up.
 */
const nextStates: Record<RunState, readonly RunState[]> = {
  QUEUED: ['PENDING', 'SUCCEEDED', 'FAILED', 'ERROR', 'BLOCKED', 'CANCELLED'],
  PENDING: ['QUEUED', 'CLAIMED', 'SUCCEEDED', 'FAILED', 'ERROR', 'BLOCKED', 'CANCELLED'],
  CLAIMED: ['QUEUED', 'INPROGRESS', 'SUCCEEDED', 'FAILED', 'ERROR', 'BLOCKED', 'CANCELLED'],
  INPROGRESS: ['QUEUED', 'SUCCEEDED', 'FAILED', 'ERROR', 'BLOCKED', 'CANCELLED'],
  BLOCKED: ['QUEUED', 'INPROGRESS', 'CANCELLED'],
  SUCCEEDED: ['QUEUED', 'INPROGRESS'],
  FAILED: ['QUEUED', 'INPROGRESS'],
  ERROR: ['QUEUED', 'INPROGRESS'],
  CANCELLED: ['QUEUED', 'INPROGRESS'],
}

const statesThatCan = {
  cancel: ['QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS', 'BLOCKED'],
} as const satisfies Record<string, readonly RunState[]>

const terminalStates: readonly RunState[] = ['SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED']
const liveExecutionStates: readonly ExecutionState[] = ['offered', 'claimed', 'running', 'idle']

export function mayFollow(from: RunState, to: RunState): boolean {
  return nextStates[from].includes(to)
}

/** Whether a run in this state takes the action. */
export function runCan(action: keyof typeof statesThatCan, run: { state: RunState }): boolean {
  const states: readonly RunState[] = statesThatCan[action]
  return states.includes(run.state)
}

/** Nothing more happens unless a person asks for it. BLOCKED is not terminal: it waits for a person. */
export function isTerminal(state: RunState): boolean {
  return terminalStates.includes(state)
}

export function isLive(state: ExecutionState): boolean {
  return liveExecutionStates.includes(state)
}
