import { readFile } from 'node:fs/promises'
import { sleep } from '@openoz/machine'
import { type ContainerDetails, inspectContainer } from '../engine/containers.ts'
import { isEngineAway } from '../engine/engine-failure.ts'
import { removeNetwork } from '../engine/networks.ts'
import { taskFolder } from '../task-folder.ts'
import { leaseLeftMs, longestLeaseMs } from '../task-lease.ts'
import { contextOf, type DockerHost, type DockerTaskContext } from './docker-host.ts'
import { namesOf } from './docker-labels.ts'
import { endContainers, endUnknown } from './docker-removal.ts'
import { DockerTask } from './docker-task.ts'
import type { SweptTasks } from './sweep-folders.ts'

const askAgainMs = 500

/** Tasks of earlier processes, by the names of their containers: what an engine runs goes on without any worker. */
export function dockerFormer(host: DockerHost): SweptTasks<DockerTaskContext, ContainerDetails | 'removed'> {
  const { engine, leaving, log, worker, network } = host
  return {
    async find(record) {
      const { container } = namesOf(record)
      for (;;) {
        try {
          const found = await inspectContainer(engine, container)
          // Somebody has cleared the engine: its agent was at work, and what that has told may lie in its volumes.
          if (!found && record.is_launched) return 'removed'
          // Made, and never started.
          return found?.State.Status === 'created' ? undefined : found
        } catch (error) {
          // Our hello names its instance, and would call it dead.
          if (leaving.aborted || !isEngineAway(error)) throw error
          log.warn({ error, container }, 'The engine does not say whether a task runs; asked again')
          await sleep(askAgainMs, leaving)
        }
      }
    },
    isRunning: (found) => found !== 'removed' && found.State.Running,
    recordOf: (record, found) => (found === undefined ? record : { ...record, is_launched: true }),
    async contextOf(record, reporter) {
      const { token: file } = taskFolder(host.stateDir, record.execution_id)
      const token = await readFile(file, 'utf8').catch((error: unknown) => {
        if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
        throw error
      })
      const secrets = [worker.apiKey, ...(token === undefined ? [] : [token]), ...network.secrets]
      const context = contextOf(host, { record, token, secrets, reporter })
      // A running agent had its way through the process of before. Without, its lease ends it.
      await host.relay?.relay.open(record.execution_id).catch((error: unknown) => {
        context.log.error({ error }, 'A task that goes on cannot be given its way to the control plane')
      })
      return context
    },
    follow: (context, found, end) =>
      found === undefined || found === 'removed'
        ? new DockerTask(host, context, { containerId: undefined, end })
        : new DockerTask(host, context, { containerId: found.Id, isFoundDead: !found.State.Running, end }),
    async end(record) {
      try {
        return await endContainers({ engine, names: namesOf(record) })
      } catch (error) {
        log.warn({ error, executionId: record.execution_id }, 'A task could not be ended')
        return false
      }
    },
    async leaseLeftMs(record) {
      const { container } = namesOf(record)
      const endedAt = Date.parse((await inspectContainer(engine, container))?.State.FinishedAt ?? '')
      // On the engine's clock, which may be ahead of ours; what never began says year 1.
      const sinceMs = Number.isNaN(endedAt) ? longestLeaseMs : Math.max(0, Date.now() - endedAt)
      return Math.max(longestLeaseMs - sinceMs, await leaseLeftMs(taskFolder(host.stateDir, record.execution_id)))
    },
    /** Nothing of a container goes on when that has ended. But what saves may be another worker's, who died. */
    async endLeftRunning(record) {
      await endContainers({ engine, names: namesOf(record) })
    },
    endUnknown: (executionId) => endUnknown(host, executionId),
    leaveFiles: (record) => removeNetwork(engine, namesOf(record).network),
  }
}
