import type { Logger } from 'pino'

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
  /** Aborted when the process is asked to stop (SIGTERM): the workspace is saved, a turn at work is given no outcome, and the exit code is 143. */
  signal: AbortSignal
  /** What tools and setup commands inherit. Our own variables must have been taken out (see `readAgentEnvironment`). */
  env: NodeJS.ProcessEnv
  /** Sentences for the run's log, e.g. about options of the command line that have no effect. */
  notices?: readonly string[]
}
