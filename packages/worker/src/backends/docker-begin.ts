import { sleep } from '@openoz/machine'
import { type ContainerDetails, inspectContainer, removeContainer, startContainer } from '../engine/containers.ts'
import { EngineFailure } from '../engine/engine-failure.ts'
import { writeRecord } from '../task-folder.ts'
import { startFailure } from './docker-exit.ts'
import type { DockerHost, DockerTaskContext } from './docker-host.ts'
import { DockerTask } from './docker-task.ts'

/**
 * The last step of a task's start. From here on it may have an agent, and it is told as one that had: noted before the engine is asked, since a container
 * that is gone when the next worker looks for it says nothing.
 */
export async function beginContainer(
  host: DockerHost,
  context: DockerTaskContext,
  containerId: string,
): Promise<DockerTask> {
  const { engine, options } = host
  const { record, paths, reporter } = context
  record.is_launched = true
  await writeRecord(paths, record)
  reporter.started('start')
  try {
    await startContainer(engine, containerId)
  } catch (error) {
    if (!(error instanceof EngineFailure) || error.status === undefined) {
      const found = await untilKnown(host, context, containerId)
      if (found) return new DockerTask(host, context, { containerId, isFoundDead: !found.State.Running })
      throw error
    }
    const failure = startFailure(error, { ...options, address: engine.address })
    reporter.failed('start', failure.message)
    throw failure
  }
  reporter.completed('start')
  return new DockerTask(host, context, { containerId })
}

const firstPauseMs = 200
const longestPauseMs = 5_000

/**
 * No answer came: the engine may have started it, or start it yet. Asks until it says which, for as long as it is away. undefined: it had not begun, and
 * never will: it is removed. Pending for ever once this process leaves, since the next one finds it in the record.
 */
async function untilKnown(
  { engine, leaving }: DockerHost,
  { log }: DockerTaskContext,
  containerId: string,
): Promise<ContainerDetails | undefined> {
  for (let pauseMs = firstPauseMs; !leaving.aborted; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    try {
      const found = await inspectContainer(engine, containerId)
      if (found && found.State.Status !== 'created') return found
      await removeContainer(engine, containerId)
      return undefined
    } catch (error) {
      log.warn({ error }, 'The engine does not say whether it has started a task; asked again')
      await sleep(pauseMs, leaving)
    }
  }
  return await new Promise<never>(() => {})
}
