import { sleep } from '@openoz/machine'
import { inspectContainer, killContainer, listContainers, removeContainer } from '../engine/containers.ts'
import { listNetworks, removeNetwork } from '../engine/networks.ts'
import { listVolumes, removeVolume } from '../engine/volumes.ts'
import type { TaskRecord } from '../task-folder.ts'
import type { DockerHost, DockerTaskContext } from './docker-host.ts'
import { stateLabel, taskLabels, whoseIs } from './docker-labels.ts'

/** The end of what was made for a task on the engine. */

/** True: nothing of it runs. Rejects when the engine does not say. */
export async function endContainers({ engine, names }: Pick<DockerTaskContext, 'engine' | 'names'>): Promise<boolean> {
  for (const name of [names.container, names.saver]) {
    await killContainer(engine, name)
    if ((await inspectContainer(engine, name))?.State.Running) return false
  }
  return true
}

const lookAgainMs = 100

/** Until nothing of it runs, or this process leaves. Rejects when the engine does not say. */
export async function endForSure(
  { leaving }: Pick<DockerHost, 'leaving'>,
  task: Pick<DockerTaskContext, 'engine' | 'names'>,
): Promise<void> {
  while (!leaving.aborted && !(await endContainers(task))) await sleep(lookAgainMs, leaving)
}

/** Of one of which nothing but the id is known. */
export async function endUnknown(
  { engine, installationId }: Pick<DockerHost, 'engine' | 'installationId'>,
  executionId: string,
): Promise<boolean> {
  const labels = [`${stateLabel}=${installationId}`, `${taskLabels.execution}=${executionId}`]
  for (const { Id } of await listContainers(engine, { labels })) await killContainer(engine, Id)
  return (await listContainers(engine, { labels })).every(({ State }) => State !== 'running')
}

/**
 * Removes its containers, its network, its volumes: in this order, since each is refused while one before it has it. With --no-cleanup the task's container
 * stays, stopped, with its volumes. Rejects when the engine refuses something; called again, it goes on.
 */
export async function removeFromEngine(
  { engine, owner, worker, relay, log }: DockerHost,
  { record, names, reporter }: Pick<DockerTaskContext, 'record' | 'names' | 'reporter'>,
): Promise<TaskRecord> {
  const { execution_id: executionId } = record
  const labels = [`${taskLabels.execution}=${executionId}`]
  // One that we have from a worker whose state folder is gone has the labels of that.
  const isOurs = ({ Labels }: { Labels: Record<string, string> | null }) =>
    whoseIs(owner, Labels ?? undefined) !== 'foreign'
  const containers = (await listContainers(engine, { labels })).filter(isOurs)
  const isKept = !record.removes_workspace && containers.some(({ Names }) => Names.includes(`/${names.container}`))
  const going = containers.filter(({ Names }) => !isKept || !Names.includes(`/${names.container}`))
  await Promise.all(going.map(({ Id }) => removeContainer(engine, Id)))
  for (const { Id } of (await listNetworks(engine, { labels })).filter(isOurs)) await removeNetwork(engine, Id)
  if (isKept) {
    reporter.completed('teardown', `The container ${names.container} was kept, stopped (--no-cleanup).`)
    log.info({ executionId, container: names.container, worker: worker.workerId }, 'A container was kept')
  } else for (const { Name } of (await listVolumes(engine, { labels })).filter(isOurs)) await removeVolume(engine, Name)
  await relay?.relay.close(executionId)
  return { ...record, process: null }
}
