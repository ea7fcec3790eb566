import type { Logger } from 'pino'
import type { BackendName } from './backends/backend.ts'
import type { DockerOptions } from './docker-options.ts'

/**
 * What a worker that is told to stop does; it takes nothing new in any case. `leave`: running tasks go on, for the next process of this worker to take
 * over. `wait`: it ends when they have. `stop`: it ends them, and the control plane has them done elsewhere.
 */
export const drainModes = ['leave', 'wait', 'stop'] as const
export type DrainMode = (typeof drainModes)[number]

/** Everything that a worker is told, after flags, environment and config file have been merged; `readWorkerConfig` makes one. */
export interface WorkerOptions {
  /** What runs name as their host. Exact and case-sensitive; several workers may share one. */
  workerId: string
  apiKey: string
  /** The control plane: `http://…`, `https://…` or `unix:/path`. */
  serverUrl: string
  /** Address of the worker socket, where it is not the server's own. */
  webSocketUrl?: string
  /** What agents are given as their control plane; the same as `serverUrl` unless told otherwise. */
  serverRootUrl: string
  /** Passed on to agents as it is. */
  sessionSharingServerUrl?: string
  backend: BackendName
  direct: DirectOptions
  /** Of the docker backend; the others have none. */
  docker?: DockerOptions
  logLevel: string
  /** False keeps workspaces after their tasks (stopped, and the log says where). */
  cleanup: boolean
  /** 0: no limit. */
  maxConcurrentTasks: number
  /** A duration such as `45m`, for runs whose snapshot names no idle window. */
  idleOnComplete?: string
  /** One task, then exit. */
  oneShot: boolean
  /** What a first signal to stop does. */
  drain: DrainMode
  /** Put into every task's environment, after the assignment's own. */
  taskEnvironment: Record<string, string>
  /** The environment that HOME, PATH, TMPDIR, the XDG folders and the OTEL variables are read from. */
  env: NodeJS.ProcessEnv
}

export interface DirectOptions {
  /** Default `/var/lib/oz/workspaces` as root, else `${XDG_STATE_HOME:-~/.local/state}/openoz/workspaces`. */
  workspaceRoot?: string
  /** Where the worker keeps its control folders. Default `/var/lib/oz` as root, else `${XDG_STATE_HOME:-~/.local/state}/openoz`. */
  stateDir?: string
  /** Instead of a workspace per task: an existing folder that all tasks share and nobody deletes. */
  targetDir?: string
  /** Default: `oz` on the PATH. */
  ozPath?: string
  /** Shell text, run in the workspace before the agent. */
  setupCommand?: string
  /** Shell text, run in the workspace after the agent. */
  teardownCommand?: string
  /** Folders that tasks must not see, beside those that the worker knows of (the server's data, the login, its own state). */
  hiddenPaths?: string[]
  /** Folders that tasks may enter although a parent folder is closed to them; permissions inside count as ever. */
  readablePaths?: string[]
  /** Limit for each of the two commands. Default 10 minutes, as for an environment's setup commands. */
  hookTimeoutMs?: number
}

export interface RunWorkerOptions extends WorkerOptions {
  log: Logger
  /** Aborted: nothing new is taken, and with what runs is done as `drain` says; then `runWorker` resolves. */
  signal: AbortSignal
  /** Aborted: all tasks are ended at once. The second SIGTERM. */
  stopNow?: AbortSignal
  /** Aborted: leave, whatever `drain` says. */
  leave?: AbortSignal
  onEvent?: (event: WorkerEvent) => void
}

/** What the program around a worker may show. Read by `oz up`, `--one-shot` and tests. */
export type WorkerEvent =
  | { type: 'connected' }
  | { type: 'disconnected'; problem: string }
  | { type: 'listening' }
  | { type: 'task_claimed'; taskId: string; executionId: string }
  | {
      type: 'task_started'
      taskId: string
      executionId: string
      /** 0: it has none on this machine. */
      pid: number
      place: string
      workspace: string
    }
  | { type: 'task_rejected'; taskId: string; executionId: string; reason: string }
  | {
      type: 'task_ended'
      taskId: string
      executionId: string
      /**
       * `abandoned`: the control plane said that the execution is over, so nothing was reported. `left`: this process ends, and what is left to do is
       * on disk for the next one.
       */
      result: 'succeeded' | 'failed' | 'cancelled' | 'abandoned' | 'left'
      message: string
    }
  | { type: 'draining' }
