import type { Dialer } from '@openoz/machine'
import type { Logger } from 'pino'
import type { AgentBundle } from '../bundle/read-manifest.ts'
import type { SharedVolumes } from '../bundle/shared-volume.ts'
import type { DockerOptions } from '../docker-options.ts'
import type { Engine } from '../engine/engine.ts'
import type { EngineFacts } from '../engine/engine-check.ts'
import type { ImagePuller } from '../engine/image-pull.ts'
import type { Instances } from '../instances.ts'
import type { Link } from '../link.ts'
import { type TaskFolder, type TaskRecord, taskFolder } from '../task-folder.ts'
import type { TaskNetwork } from '../task-network.ts'
import type { WorkerOptions } from '../worker-options.ts'
import type { StepReporter } from './backend.ts'
import { type LabelOwner, namesOf, type TaskNames } from './docker-labels.ts'
import type { Observer } from './docker-observe.ts'
import type { Relay } from './docker-relay.ts'
import type { HeldTasks } from './held-tasks.ts'
import type { SweepHost } from './sweep-folders.ts'

/** The docker backend once it was checked: what starting, adopting and sweeping share. */
export interface DockerHost {
  backend: 'docker'
  worker: WorkerOptions
  options: DockerOptions
  dialer: Dialer
  link: Link
  log: Logger
  deliveryTimeoutMs: number
  savingTimeoutMs: number
  unsteadyTimeoutMs: number
  stateDir: string
  installationId: string
  instances: Instances
  /** Whose everything is that this process makes on the engine. */
  owner: LabelOwner
  engine: Engine
  facts: EngineFacts
  puller: ImagePuller
  shared: SharedVolumes
  /** undefined: the operator has an agent of their own (`sidecar_image`). */
  bundle: AgentBundle | undefined
  observer: Observer
  network: TaskNetwork
  /** undefined: containers reach the control plane by themselves. */
  relay: TaskRelay | undefined
  /** Tasks of our worker id at another control plane that the log has named. */
  toldElsewhere: Set<string>
  /** Instances whose state folder is gone with their container, and whose tasks are ours since; see `docker-homeless.ts`. `isNamed`: a hello did. */
  claimed: Map<string, { isNamed: boolean }>
  held: HeldTasks<DockerTaskContext>
  /** Aborted when this process lets go of its tasks. */
  leaving: AbortSignal
  alone: SweepHost<DockerTaskContext>['alone']
}

export interface TaskRelay {
  relay: Relay
  /** What a folder of ours is on the engine's machine. */
  onEngine(folder: string): string
}

/** Everything about a task of the docker backend that does not change while it lives. */
export interface DockerTaskContext {
  record: TaskRecord
  paths: TaskFolder
  names: TaskNames
  /** Of the execution. */
  token?: string
  /** Never to be seen in what the worker reports. */
  secrets: string[]
  reporter: StepReporter
  engine: Engine
  dialer: Dialer
  link: Link
  log: Logger
  deliveryTimeoutMs: number
  savingTimeoutMs: number
  unsteadyTimeoutMs: number
}

export function contextOf(
  host: DockerHost,
  task: Pick<DockerTaskContext, 'record' | 'token' | 'secrets' | 'reporter'>,
): DockerTaskContext {
  const { engine, dialer, link, log, deliveryTimeoutMs, savingTimeoutMs, unsteadyTimeoutMs, stateDir } = host
  const { task_id: runId, execution_id: executionId } = task.record
  return {
    ...task,
    ...{ engine, dialer, link, deliveryTimeoutMs, savingTimeoutMs, unsteadyTimeoutMs },
    paths: taskFolder(stateDir, executionId),
    names: namesOf({ task_id: runId, execution_id: executionId }),
    log: log.child({ runId, executionId }),
  }
}
