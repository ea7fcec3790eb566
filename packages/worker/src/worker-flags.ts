import { drainModes } from './worker-options.ts'

/**
 * The worker's options in one table: the command line, `docs/configuration.md`, the config file's reader and the completeness test all
 * read it. What a flag is called in the result of `readWorkerConfig` is its `name`.
 */
export interface WorkerFlag {
  /** Key in `WorkerFlagValues`. */
  name: keyof WorkerFlagValues
  /** As commander spells it. */
  flag: string
  type: 'string' | 'path' | 'url' | 'enum' | 'integer' | 'duration' | 'boolean' | 'list'
  choices?: readonly string[]
  /** For people; the value itself is applied by `readWorkerConfig`. */
  default?: string
  /** Environment variables that stand in for the flag, in this order. */
  env?: readonly string[]
  /** Where the config file has it. */
  configKey?: string
  description: string
  /** Works, but is not in `--help`: what charts and scripts of the reference set. */
  hidden?: boolean
}

/** What the command line gives. Absent and undefined mean "not given". */
export interface WorkerFlagValues {
  configFile?: string
  backend?: string
  apiKey?: string
  serverUrl?: string
  workerId?: string
  logLevel?: string
  targetDir?: string
  /** False for `--no-cleanup`; true, commander's own default, counts as not given. */
  cleanup?: boolean
  env?: string[]
  volumes?: string[]
  maxConcurrentTasks?: string | number
  idleOnComplete?: string
  oneShot?: boolean
  drain?: string
  webSocketUrl?: string
  serverRootUrl?: string
  sessionSharingServerUrl?: string
}

export const logLevels = ['debug', 'info', 'warn', 'error'] as const

/** The default listen address of `oz server`. */
export const defaultServerUrl = 'http://127.0.0.1:4747'

export const workerFlags: readonly WorkerFlag[] = [
  {
    name: 'configFile',
    flag: '--config-file <file>',
    type: 'path',
    description: 'YAML file with the keys named here. Unknown keys are errors; flags win over it.',
  },
  {
    name: 'backend',
    flag: '--backend <name>',
    type: 'enum',
    choices: ['docker', 'direct', 'kubernetes', 'command'],
    default: 'docker',
    configKey: 'backend',
    description: 'What runs tasks: docker (a container each) or direct (processes on this machine).',
  },
  {
    name: 'apiKey',
    flag: '--api-key <key>',
    type: 'string',
    env: ['OZ_API_KEY', 'WARP_API_KEY'],
    description: 'Key of a worker, team or person. Prefer the variable: other users see command lines.',
  },
  {
    name: 'serverUrl',
    flag: '--server-url <url>',
    type: 'url',
    default: defaultServerUrl,
    env: ['OZ_SERVER_URL', 'WARP_SERVER_ROOT_URL'],
    description: 'Address of the control plane: http://, https:// or unix:/path.',
  },
  {
    name: 'workerId',
    flag: '--worker-id <id>',
    type: 'string',
    configKey: 'worker_id',
    description: 'Name that runs are sent to, exact and case-sensitive. Several workers may share one.',
  },
  {
    name: 'logLevel',
    flag: '--log-level <level>',
    type: 'enum',
    choices: logLevels,
    default: 'info',
    description: 'How much the worker writes to stderr.',
  },
  {
    name: 'targetDir',
    flag: '--target-dir <folder>',
    type: 'path',
    configKey: 'backend.direct.target_dir',
    description: 'Run all tasks in this existing folder, instead of a new one each. Never deleted.',
  },
  {
    name: 'cleanup',
    flag: '--no-cleanup',
    type: 'boolean',
    configKey: 'cleanup',
    description: 'Keep the workspaces of ended tasks.',
  },
  {
    name: 'env',
    flag: '-e, --env <entry>',
    type: 'list',
    configKey: 'backend.direct.environment',
    description: 'KEY=VALUE, or KEY to pass on the worker’s own value, for every task. May be repeated.',
  },
  {
    name: 'volumes',
    flag: '-v, --volumes <spec>',
    type: 'list',
    configKey: 'backend.docker.volumes',
    description:
      'HOST:CONTAINER[:MODE] of the docker backend, for every task, beside those of the file. May be repeated.',
  },
  {
    name: 'maxConcurrentTasks',
    flag: '--max-concurrent-tasks <n>',
    type: 'integer',
    default: '0',
    configKey: 'max_concurrent_tasks',
    description: 'Tasks at the same time; 0 means no limit, also where the file sets one.',
  },
  {
    name: 'idleOnComplete',
    flag: '--idle-on-complete <duration>',
    type: 'duration',
    configKey: 'idle_on_complete',
    description: 'How long an agent waits for a follow-up when its run does not say (45m, 1h 30m; 0s ends at once).',
  },
  {
    name: 'oneShot',
    flag: '--one-shot',
    type: 'boolean',
    description: 'Take one task, then exit: 0 when it succeeded, else 1.',
  },
  {
    name: 'drain',
    flag: '--drain <mode>',
    type: 'enum',
    choices: drainModes,
    default: 'leave; with --one-shot wait',
    configKey: 'drain',
    description:
      'What SIGTERM does with running tasks: leave them for the next process of this worker, wait for them, or stop them. A second one stops them at once.',
  },
  {
    name: 'webSocketUrl',
    flag: '--web-socket-url <url>',
    type: 'url',
    hidden: true,
    description: 'Address of the worker socket, where it is not on the server’s own.',
  },
  {
    name: 'serverRootUrl',
    flag: '--server-root-url <url>',
    type: 'url',
    hidden: true,
    description: 'Address that agents are given for the control plane; without --server-url the worker’s too.',
  },
  {
    name: 'sessionSharingServerUrl',
    flag: '--session-sharing-server-url <url>',
    type: 'url',
    hidden: true,
    description: 'Passed on to agents.',
  },
]
