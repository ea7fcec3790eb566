import { randomUUID } from 'node:crypto'
import type { WorkerMessage } from '@openoz/protocol'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { type AssignmentContext, resumeAssignment } from './assignment.ts'
import type { Backend, StopCause, Task, TaskRemains } from './backends/backend.ts'
import { until } from './test-support/until.ts'

/** What comes while an ended task is closed, or while its end is still worked on. */

const refs = { task_id: randomUUID(), execution_id: randomUUID() }

function follow(options: { mayRun?: boolean } = {}) {
  const sent: WorkerMessage[] = []
  const steps: string[] = []
  const closed = Promise.withResolvers<void>()
  const finished = Promise.withResolvers<TaskRemains>()
  const task: Task = {
    pid: undefined,
    workspace: '/nowhere',
    exited: Promise.resolve({ type: 'exited', code: 3 }),
    mayRun: options.mayRun ?? false,
    stop: async () => {},
    async close(cause: StopCause | undefined) {
      steps.push('close')
      await closed.promise
      return cause
    },
    finish() {
      steps.push('finish')
      return finished.promise
    },
  }
  const backend = { remove: async () => {} } as unknown as Backend
  const context: AssignmentContext = {
    backend,
    log: pino({ level: 'silent' }),
    send: (message) => void sent.push(message),
    deliver: async (message) => void sent.push(message),
    onStarted() {},
    onGone: () => steps.push('gone'),
    graceMs: 10,
    leaving: new AbortController().signal,
  }
  const adopted = { refs, startedAt: new Date(), phase: 'running', task: Promise.resolve(task) } as const
  return {
    assignment: resumeAssignment(context, adopted),
    types: () => sent.map(({ type }) => type),
    sent,
    reached: (step: string) => until(step, () => steps.includes(step)),
    close: closed.resolve,
    finish: () => finished.resolve({ lastWords: '', isLost: false, ranOutOfMemory: false }),
  }
}

test('a task that is abandoned while it is closed is told to be gone once it is', async () => {
  const { assignment, types, reached, close, finish } = follow()
  await reached('close')
  assignment.stop('abandon')
  expect(types()).toEqual([])
  close()
  await reached('finish')
  expect(types()).toEqual(['task_gone'])
  finish()
  await assignment.done
  expect(types()).toEqual(['task_gone'])
})

test('a shutdown that comes while a task is closed is what its end is told with', async () => {
  const { assignment, sent, reached, close, finish } = follow()
  await reached('close')
  assignment.stop('shutdown')
  close()
  finish()
  await assignment.done
  expect(sent.at(-1)).toMatchObject({ type: 'task_failed', data: { failure_reason: 'graceful_shutdown' } })
})

test('a task that is abandoned while its end is delivered is told to be gone at once', async () => {
  const { assignment, types, reached, close, finish } = follow()
  close()
  await reached('finish')
  expect(types()).toEqual(['task_finishing'])
  assignment.stop('abandon')
  expect(types()).toEqual(['task_finishing', 'task_gone'])
  finish()
  await assignment.done
  expect(types()).toEqual(['task_finishing', 'task_gone'])
})

test('a task of which something cannot be ended is never told to be gone', async () => {
  const { assignment, types, reached, close, finish } = follow({ mayRun: true })
  await reached('close')
  assignment.stop('abandon')
  close()
  finish()
  await assignment.done
  expect(types()).toEqual([])
})
