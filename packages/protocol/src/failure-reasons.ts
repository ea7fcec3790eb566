import type { PlatformErrorCode } from './error-spec.ts'

/**
 * Why a worker says that a task ended badly: the 29 values of the reference wire (metric labels too, so names are fixed), and what each
 * means for the run. `side: 'user'` ends as FAILED, `'platform'` as ERROR. `retries` counts new executions that the server starts by
 * itself, per turn; everything else waits for a person. The delay doubles with each of them, up to 5 minutes. Adding one: both sides of the worker socket and the metric documentation.
 */
interface FailureReasonSpec {
  side: 'user' | 'platform'
  code: PlatformErrorCode
  retries: number
  retryDelaySeconds: number
  meaning: string
}

const never = { retries: 0, retryDelaySeconds: 0 } as const

export const failureReasons = {
  unknown: { side: 'platform', code: 'internal_error', ...never, meaning: 'The worker gave no reason.' },
  task_timeout: {
    side: 'user',
    code: 'resource_unavailable',
    ...never,
    meaning: 'The task ran longer than it was allowed to.',
  },
  task_cancelled: { side: 'user', code: 'invalid_request', ...never, meaning: 'The task was cancelled.' },
  graceful_shutdown: {
    side: 'platform',
    code: 'resource_unavailable',
    retries: 3,
    retryDelaySeconds: 0,
    meaning: 'The worker was stopped while the task ran.',
  },
  image_pull: { side: 'user', code: 'environment_setup_failed', ...never, meaning: 'The image could not be pulled.' },
  sidecar_prep: {
    side: 'platform',
    code: 'internal_error',
    retries: 1,
    retryDelaySeconds: 10,
    meaning: 'A sidecar could not be prepared.',
  },
  container_create: {
    side: 'platform',
    code: 'internal_error',
    retries: 1,
    retryDelaySeconds: 10,
    meaning: 'The container could not be created.',
  },
  container_start: {
    side: 'platform',
    code: 'internal_error',
    retries: 1,
    retryDelaySeconds: 10,
    meaning: 'The container could not be started.',
  },
  container_wait: {
    side: 'platform',
    code: 'internal_error',
    retries: 1,
    retryDelaySeconds: 10,
    meaning: 'The container was lost from sight.',
  },
  container_exit: {
    side: 'platform',
    code: 'internal_error',
    ...never,
    meaning: 'The container ended before the agent gave an outcome.',
  },
  container_oom: {
    side: 'user',
    code: 'resource_unavailable',
    ...never,
    meaning: 'The task used more memory than it was given.',
  },
  workspace_setup: {
    side: 'platform',
    code: 'environment_setup_failed',
    ...never,
    meaning: 'The workspace could not be made.',
  },
  setup_command: {
    side: 'user',
    code: 'environment_setup_failed',
    ...never,
    meaning: 'The worker’s setup command failed.',
  },
  agent_invocation: {
    side: 'platform',
    code: 'internal_error',
    retries: 2,
    retryDelaySeconds: 2,
    meaning: 'The agent could not be started, or was killed.',
  },
  teardown_command: {
    side: 'platform',
    code: 'internal_error',
    ...never,
    meaning: 'The worker’s teardown command failed.',
  },
  dispatch_command: {
    side: 'platform',
    code: 'internal_error',
    ...never,
    meaning: 'The operator’s dispatch command failed.',
  },
  dispatch_timeout: {
    side: 'platform',
    code: 'resource_unavailable',
    ...never,
    meaning: 'The operator’s dispatch command took too long.',
  },
  cancel_command: {
    side: 'platform',
    code: 'internal_error',
    ...never,
    meaning: 'The operator’s cancel command failed.',
  },
  job_create: {
    side: 'platform',
    code: 'internal_error',
    retries: 1,
    retryDelaySeconds: 10,
    meaning: 'The Kubernetes Job could not be created.',
  },
  job_watch: {
    side: 'platform',
    code: 'internal_error',
    retries: 1,
    retryDelaySeconds: 10,
    meaning: 'The Kubernetes Job was lost from sight.',
  },
  job_failed: { side: 'platform', code: 'internal_error', ...never, meaning: 'The Kubernetes Job failed.' },
  evicted: {
    side: 'platform',
    code: 'resource_unavailable',
    retries: 2,
    retryDelaySeconds: 10,
    meaning: 'The pod was evicted.',
  },
  pod_watch: {
    side: 'platform',
    code: 'internal_error',
    retries: 1,
    retryDelaySeconds: 10,
    meaning: 'The pod was lost from sight.',
  },
  unschedulable: {
    side: 'user',
    code: 'resource_unavailable',
    ...never,
    meaning: 'No machine there can take the task.',
  },
  volume_mount: {
    side: 'user',
    code: 'environment_setup_failed',
    ...never,
    meaning: 'A volume could not be mounted.',
  },
  init_container: {
    side: 'user',
    code: 'environment_setup_failed',
    ...never,
    meaning: 'An init container failed.',
  },
  invalid_image: { side: 'user', code: 'environment_setup_failed', ...never, meaning: 'The image is not usable.' },
  active_deadline: {
    side: 'user',
    code: 'resource_unavailable',
    ...never,
    meaning: 'The Job ran longer than its deadline.',
  },
  cleanup: { side: 'platform', code: 'internal_error', ...never, meaning: 'Cleaning up failed.' },
} as const satisfies Record<string, FailureReasonSpec>

export type FailureReason = keyof typeof failureReasons

/** What the server itself finds, or an agent says of itself, beside what workers report. */
export const ownFailureReasons = {
  lost: {
    side: 'platform',
    code: 'resource_unavailable',
    retries: 2,
    retryDelaySeconds: 0,
    meaning: 'The execution was lost: nobody renewed its lease.',
  },
  lease_lost: {
    side: 'platform',
    code: 'resource_unavailable',
    retries: 3,
    retryDelaySeconds: 0,
    meaning: 'The agent could not renew its lease and stopped itself.',
  },
  worker_died: {
    side: 'platform',
    code: 'resource_unavailable',
    retries: 3,
    retryDelaySeconds: 2,
    meaning: 'The worker was killed, and the task with it.',
  },
  disk_full: {
    side: 'platform',
    code: 'resource_unavailable',
    retries: 2,
    retryDelaySeconds: 10,
    meaning: 'The disk of the worker’s state folder was full.',
  },
  start_timeout: {
    side: 'platform',
    code: 'resource_unavailable',
    retries: 1,
    retryDelaySeconds: 10,
    meaning: 'The agent never said hello.',
  },
  run_poison: {
    side: 'platform',
    code: 'internal_error',
    ...never,
    meaning: 'The run’s agent died together with its worker again and again.',
  },
  restored: {
    side: 'platform',
    code: 'conflict',
    ...never,
    meaning: 'The run was at work when the backup was made that this control plane was restored from.',
  },
} as const satisfies Record<string, FailureReasonSpec>

export type OwnFailureReason = keyof typeof ownFailureReasons
export type AnyFailureReason = FailureReason | OwnFailureReason

/** What workers report beside the reasons of the reference wire. */
const ownReportedReasons = ['disk_full', 'lease_lost', 'worker_died'] as const satisfies OwnFailureReason[]
export type ReportedFailureReason = FailureReason | (typeof ownReportedReasons)[number]

/** Reasons from a worker that is newer than this server are read as `unknown` instead of being refused. */
export function failureReasonOf(text: string | undefined): ReportedFailureReason {
  const own = ownReportedReasons.find((reason) => reason === text)
  if (own) return own
  return text !== undefined && Object.hasOwn(failureReasons, text) ? (text as FailureReason) : 'unknown'
}

export function failureSpec(reason: AnyFailureReason): FailureReasonSpec {
  return { ...failureReasons, ...ownFailureReasons }[reason]
}
