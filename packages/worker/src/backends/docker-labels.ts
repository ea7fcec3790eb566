import { createHash } from 'node:crypto'
import { isUuid } from '@openoz/protocol'
import type { Instances } from '../instances.ts'
import type { TaskRefs } from './backend.ts'

/**
 * Names and labels of everything that a worker makes on an engine. By its labels a later worker process, or one beside it, knows whose a thing is: so
 * what has none of ours is nobody's business, and what has is complete from the moment that it exists. They hold no secret: everybody with access to
 * the engine reads them.
 *
 * A thing of a task has the first three labels, of which operators and dashboards know the names; a bundle's or a sidecar's has none of them.
 */
export const taskLabels = { worker: 'oz-worker-id', task: 'oz-task-id', execution: 'oz-execution-id' } as const

/** The state folder that knows of it (see `installation.ts`): what no state folder knows of is cleared by whoever has this one. */
export const stateLabel = 'oz-worker-state'
/** The worker process that made it (see `instances.ts`). */
export const instanceLabel = 'oz-worker-instance'
/** Of which control plane: `serverMark` of its address. */
export const serverLabel = 'oz-server'
export const roleLabel = 'oz-role'
/** `true`: of a worker with --no-cleanup. No sweep removes it. */
export const keepLabel = 'oz-keep'
/** The worker's own container, where it is one: with a state folder that is gone with that, nothing else tells that it is dead. */
export const workerContainerLabel = 'oz-worker-container'
const versionLabel = 'oz-version'
/** Instead of the labels of a task: hash of the agent bundle, id of the image of a sidecar. */
export const bundleLabel = 'oz-bundle'
export const sidecarLabel = 'oz-sidecar'
/** Of a claim: the dead instance that it is for; see `claimName`. */
const claimLabel = 'oz-claim'

/**
 * `task`: its container. `saver`: the one that saves what a dead agent left. `helper`: the one through which its volumes are filled and read, and which
 * never runs. `control`, `workspace`, `image-volume`: volumes.
 */
export type ObjectRole = 'task' | 'saver' | 'helper' | 'control' | 'workspace' | 'image-volume' | 'network'

/** The worker process, as far as its labels say it. */
export interface LabelOwner {
  workerId: string
  serverUrl: string
  installationId: string
  instance: string
  version: string
  /** With --no-cleanup. */
  keeps: boolean
  /** Id of the container that it runs in. */
  ownContainer?: string
}

export interface TaskNames {
  container: string
  saver: string
  helper: string
  network: string
  control: string
  workspace: string
}

/** Of one execution: the engine refuses a second thing of the same name. */
export function namesOf({ task_id: runId, execution_id: executionId }: TaskRefs): TaskNames {
  const base = `oz-${executionId}`
  return {
    container: `oz-task-${runId}-${executionId.slice(-12)}`,
    saver: `${base}-saver`,
    helper: `${base}-helper`,
    network: base,
    control: `${base}-control`,
    workspace: `${base}-workspace`,
  }
}

/** Of the `number`th folder that the task's image declares as a volume, from 1. */
export function imageVolumeName({ execution_id: executionId }: TaskRefs, number: number): string {
  return `oz-${executionId}-volume-${number}`
}

/** What all tasks of an engine share, and the container that fills it: whose name is the lock, because the engine gives it once. */
export function sharedNames(kind: 'agent' | 'sidecar', id: string): { volume: string; filler: string } {
  const short = id.replace(/^sha256:/, '').slice(0, 24)
  return { volume: `oz-${kind}-${short}`, filler: `oz-fill-${short}` }
}

/** Who makes it first takes over what a dead instance had whose lock is gone with its state folder. */
export function claimName(instance: string): string {
  return `oz-claim-${instance}`
}

/** It is no task's, and whose it is can be told. */
export function claimLabels(owner: LabelOwner, instance: string): Record<string, string> {
  return {
    [taskLabels.worker]: owner.workerId,
    ...sharedLabels(owner),
    [instanceLabel]: owner.instance,
    [serverLabel]: serverMark(owner.serverUrl),
    [claimLabel]: instance,
    ...(owner.ownContainer === undefined ? {} : { [workerContainerLabel]: owner.ownContainer }),
  }
}

/** The instance that a claim is for; undefined for what is none. */
export function claimedBy(labels: Record<string, string> | undefined): string | undefined {
  return labels?.[claimLabel]
}

/** Another process of this state folder, by its lock. Our own, and what we hold of dead ones, is not. */
export function isAlive(instances: Pick<Instances, 'borrow'>, instance: string): boolean {
  const lock = instances.borrow(instance)
  lock?.release()
  return lock === undefined
}

export function labelsOf(owner: LabelOwner, refs: TaskRefs, role: ObjectRole): Record<string, string> {
  return {
    [taskLabels.worker]: owner.workerId,
    [taskLabels.task]: refs.task_id,
    [taskLabels.execution]: refs.execution_id,
    ...sharedLabels(owner),
    [instanceLabel]: owner.instance,
    [serverLabel]: serverMark(owner.serverUrl),
    [roleLabel]: role,
    ...(owner.keeps ? { [keepLabel]: 'true' } : {}),
    ...(owner.ownContainer === undefined ? {} : { [workerContainerLabel]: owner.ownContainer }),
  }
}

/** Of what no task has to itself. */
export function sharedLabels({
  installationId,
  version,
}: Pick<LabelOwner, 'installationId' | 'version'>): Record<string, string> {
  return { [stateLabel]: installationId, [versionLabel]: version }
}

/** Addresses may hold a password, and labels are for everybody. */
export function serverMark(serverUrl: string): string {
  return createHash('sha256').update(serverUrl).digest('hex').slice(0, 16)
}

/** undefined for what is no task's, or was not labelled by a worker: anybody can put labels on anything. */
export function refsFromLabels(labels: Record<string, string> | undefined): TaskRefs | undefined {
  const task = labels?.[taskLabels.task]
  const execution = labels?.[taskLabels.execution]
  if (task === undefined || execution === undefined || !isUuid(task) || !isUuid(execution)) return undefined
  return { task_id: task, execution_id: execution }
}

/**
 * `ours`: our state folder knows of it, or it is left over. `same_worker`: of our worker id at our control plane, from another state folder: of a worker
 * elsewhere on this engine, or of one whose folder is gone. `foreign`: anybody else's.
 */
export function whoseIs(
  owner: Pick<LabelOwner, 'workerId' | 'serverUrl' | 'installationId'>,
  labels: Record<string, string> | undefined,
): 'ours' | 'same_worker' | 'foreign' {
  if (labels?.[stateLabel] === undefined) return 'foreign'
  if (labels[stateLabel] === owner.installationId) return 'ours'
  const isSame = labels[taskLabels.worker] === owner.workerId && labels[serverLabel] === serverMark(owner.serverUrl)
  return isSame ? 'same_worker' : 'foreign'
}
