import type { AgentEvent } from '@openoz/protocol'
import type { Logger } from 'pino'
import type { TurnResult } from './harnesses/harness.ts'

export interface RunAgentOptions {
  /** `http://…`, `https://…` or `unix:/path/to.sock`. */
  serverUrl: string
  /** Key of this one execution; the only credential that the agent has. */
  executionToken: string
  /** Folder for what the control plane has not acknowledged yet. Without one a temporary folder is made, and removed once it is empty. */
  spoolDir?: string
  /** The workspace: an existing folder, usually empty, in which repositories are cloned. */
  workingDirectory: string
  log: Logger
  /**
   * Aborted when the process is asked to stop. Started by a worker (SIGTERM): the workspace is saved, a turn at work is given no outcome, and the
   * exit code is 143. In a run of a person's own machine (Ctrl-C): the turn is given CANCELLED, and the exit code is 130.
   */
  signal: AbortSignal
  /** Aborted when nothing may be waited for any more: what runs is killed, and `runAgent` resolves. */
  now?: AbortSignal
  /** What tools and setup commands inherit. Our own variables must have been taken out (see `readAgentEnvironment`). */
  env: NodeJS.ProcessEnv
  /** Sentences for the run's log, e.g. about options of the command line that have no effect. */
  notices?: readonly string[]
  /** How long the control plane is waited for at the start. Default: as long as it may be away without a run noticing. */
  helloPatienceMs?: number
  /** How long to wait for a follow-up, by how the last turn ended. Default: what the control plane says, and not at all after a failure. */
  idle?: { onCompleteMs: number; onFailMs: number }
  /** Save what the run changes. Default: true. */
  savesWorkspace?: boolean
  /** Masked wherever they come up, beside those that the run has. */
  secrets?: readonly string[]
  /** Told of every event, as the control plane gets it: masked and merged. Must not throw. */
  onEvent?: (event: AgentEvent) => void
}

export interface RunAgentResult {
  /**
   * 0: the last turn succeeded. 1: it ended otherwise, or could not begin. 130, 143: the process was asked to stop. 75 (`leaseLostExitCode`): it could
   * not renew its lease, and something is left undone.
   */
  exitCode: 0 | 1 | 75 | 130 | 143
  /** Of a run of a person's own machine: how its last turn ended, and whether the control plane has all that was said. */
  local?: { last: TurnResult | undefined; isDelivered: boolean }
  /** Why it could not begin, or be brought to its end. */
  error?: unknown
}
