import { sleep } from '@openoz/machine'
import { inspectContainer, killContainer, listContainers } from '../engine/containers.ts'
import { backendOf, listTaskFolders, lockTask, readRecord, type TaskRecord, taskFolder } from '../task-folder.ts'
import { silentReporter, type TaskRefs } from './backend.ts'
import { dockerFormer } from './docker-adopt.ts'
import type { DockerHost, DockerTaskContext } from './docker-host.ts'
import { namesOf, refsFromLabels, roleLabel, stateLabel, taskLabels } from './docker-labels.ts'
import { fetchLeft } from './docker-left.ts'
import { endForSure } from './docker-removal.ts'
import { saveLeftWork } from './docker-save.ts'
import type { HeldTask } from './held-tasks.ts'

const savingMs = 30_000
const lookAgainMs = 100

/**
 * A new execution of a run was given to us, and the control plane has taken our claim: so earlier ones are over, and nothing of theirs may run beside it,
 * whichever worker of this state folder they belong to. Ends those of this installation; others' have their lease. What one whose worker is dead has not
 * saved is saved, as evidence. Rejects when the engine does not say that they have ended.
 */
export async function fenceFormerExecutions(host: DockerHost, refs: TaskRefs): Promise<void> {
  const { stateDir, held, backend } = host
  for (const executionId of await listTaskFolders(stateDir)) {
    if (executionId === refs.execution_id) continue
    const ours = held.get(executionId)
    if (ours) {
      // Ours are over, or they would not have let the offer in; what we clear for another worker id is not.
      if (!held.isOver(executionId) && ours.context?.record.task_id === refs.task_id) await endClearing(host, ours)
      continue
    }
    const record = await readRecord(taskFolder(stateDir, executionId))
    if (record?.task_id === refs.task_id && backendOf(record) === backend) await fence(host, record)
  }
  await endWithoutFolder(host, refs)
}

async function endClearing(host: DockerHost, { context, clearing }: HeldTask<DockerTaskContext>): Promise<void> {
  clearing?.abort()
  if (context) await endForSure(host, context)
}

async function fence(host: DockerHost, record: TaskRecord): Promise<void> {
  const { engine, held, leaving, log } = host
  const { execution_id: executionId, task_id: runId } = record
  const lock = lockTask(taskFolder(host.stateDir, executionId))
  if (!lock) {
    log.warn(
      { runId, executionId },
      'Another worker of this machine still has an earlier execution of the run; it is ended',
    )
    return await endForSure(host, { engine, names: namesOf(record) })
  }
  const context = await dockerFormer(host).contextOf(record, silentReporter)
  held.hold(executionId, { lock, context })
  await held.giveUp(executionId, async () => {
    await endForSure(host, context)
    // The next execution does not wait long for it.
    const limit = AbortSignal.any([leaving, AbortSignal.timeout(savingMs)])
    await fetchLeft(host, context, limit).catch(() => {})
    await saveLeftWork(host, context, limit)
  })
}

/** What a start that failed has left, or a folder that was removed by hand. */
async function endWithoutFolder(
  { engine, installationId, leaving, log }: DockerHost,
  { task_id: runId, execution_id: executionId }: TaskRefs,
): Promise<void> {
  const labels = [`${stateLabel}=${installationId}`, `${taskLabels.task}=${runId}`]
  for (const { Id: id, Labels, State } of await listContainers(engine, { labels })) {
    const refs = refsFromLabels(Labels)
    if (refs === undefined || refs.execution_id === executionId || State !== 'running') continue
    log.warn(
      { runId, executionId: refs.execution_id, role: Labels[roleLabel] },
      'An earlier execution still runs; ended',
    )
    await killContainer(engine, id)
    while (!leaving.aborted && (await inspectContainer(engine, id))?.State.Running) await sleep(lookAgainMs, leaving)
  }
}
