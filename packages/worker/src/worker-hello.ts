import { hostname } from 'node:os'
import type { ExecutionRef, WorkerMessage } from '@openoz/protocol'
import { workerProtocolVersion } from '@openoz/protocol/schemas'
import manifest from '../package.json' with { type: 'json' }
import type { Assignment, AssignmentPhase } from './assignment.ts'
import type { Backend } from './backends/backend.ts'
import type { RunWorkerOptions } from './worker-options.ts'

export type WorkerHello = Extract<WorkerMessage, { type: 'worker_hello' }>

/** What a connection begins with: who we are, what we have, and for which of our processes that is all. */
export function workerHello({
  options,
  backend,
  instances,
  assignments,
}: {
  options: Pick<RunWorkerOptions, 'maxConcurrentTasks'>
  backend: Pick<Backend, 'name' | 'platform' | 'engine'>
  instances: readonly string[]
  assignments: readonly Assignment[]
}): WorkerHello {
  const refsOf = (wanted: AssignmentPhase): ExecutionRef[] =>
    assignments
      .filter(({ phase }) => phase === wanted)
      .map(({ taskId, executionId }) => ({ task_id: taskId, execution_id: executionId }))
  return {
    type: 'worker_hello',
    data: {
      protocol: workerProtocolVersion,
      version: manifest.version,
      backend: backend.name,
      platform: backend.platform,
      ...(backend.engine === undefined ? {} : { engine: backend.engine.slice(0, 128) }),
      host: hostname().slice(0, 255),
      max_concurrent_tasks: options.maxConcurrentTasks,
      running: refsOf('running'),
      finishing: refsOf('finishing'),
      instances: instances.slice(0, 1_000),
    },
  }
}
