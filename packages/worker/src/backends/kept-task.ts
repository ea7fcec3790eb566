import { AppError } from '@openoz/protocol'
import { inspectContainer, listContainers, removeContainer } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import { listNetworks, removeNetwork } from '../engine/networks.ts'
import { listVolumes, removeVolume } from '../engine/volumes.ts'
import { exitCodeOf } from './docker-exit.ts'
import { keepLabel, refsFromLabels, roleLabel, taskLabels } from './docker-labels.ts'

/** What a worker with --no-cleanup has left of a task on an engine, for its operator to look at. */
export interface KeptTask {
  run_id: string
  execution_id: string
  worker_id: string
  container: string
  container_id: string
  /** Its id: its name may mean another one by now. */
  image: string
  /** `exited`; `running` while the task is at work. */
  state: string
  exit_code: number
  /** A process in it was ended for want of memory. */
  out_of_memory: boolean
  started_at: string
  finished_at: string
  volumes: { name: string; path: string }[]
}

/** All of a run's executions, the latest first. */
export async function findKeptTasks(engine: Engine, runId: string): Promise<KeptTask[]> {
  const labels = [`${keepLabel}=true`, `${roleLabel}=task`, `${taskLabels.task}=${runId}`]
  const listed = await listContainers(engine, { labels })
  const kept: KeptTask[] = []
  for (const { Id } of listed.sort((one, other) => other.Created - one.Created)) {
    const found = await inspectContainer(engine, Id)
    const refs = refsFromLabels(found?.Config.Labels ?? undefined)
    if (!found || !refs) continue
    const { State, Config, Mounts, Name } = found
    kept.push({
      run_id: refs.task_id,
      execution_id: refs.execution_id,
      worker_id: Config.Labels?.[taskLabels.worker] ?? '',
      container: Name.slice(1),
      container_id: Id,
      image: Config.Image,
      state: State.Status,
      exit_code: exitCodeOf(State),
      out_of_memory: State.OOMKilled,
      started_at: State.StartedAt,
      finished_at: State.FinishedAt,
      volumes: Mounts.filter(({ Type }) => Type === 'volume').map(({ Name: name = '', Destination: path }) => ({
        name,
        path,
      })),
    })
  }
  return kept
}

/** With its volumes, and nothing that other tasks have too. Rejects with `usage` while the task is at work. */
export async function removeKeptTask(engine: Engine, { execution_id, container_id, run_id }: KeptTask): Promise<void> {
  if ((await inspectContainer(engine, container_id))?.State.Running) {
    const problem = `The container is still at work; \`oz run cancel ${run_id}\` ends it.`
    throw new AppError('usage', { problem })
  }
  const labels = [`${taskLabels.execution}=${execution_id}`]
  for (const { Id } of await listContainers(engine, { labels })) await removeContainer(engine, Id)
  for (const { Id } of await listNetworks(engine, { labels })) await removeNetwork(engine, Id)
  for (const { Name } of await listVolumes(engine, { labels })) await removeVolume(engine, Name)
}
