import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import type { WorkerMessage } from '@openoz/protocol'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { type AssignmentContext, createStepReporter, resumeAssignment } from './assignment.ts'
import type { Backend, StopCause, Task, TaskRemains } from './backends/backend.ts'
import { until } from './test-support/until.ts'

/** What comes while an ended task is closed, or while its end is still worked on. */

const refs = { task_id: randomUUID(), execution_id: randomUUID() }

function follow(options: { mayRun?: boolean; code?: number; pid?: number; signal?: number } = {}) {
  const sent: WorkerMessage[] = []
  const steps: string[] = []
  const closed = Promise.withResolvers<void>()
  const finished = Promise.withResolvers<TaskRemains>()
  const task: Task = {
    pid: options.pid,
    place: 'nowhere',
    workspace: '/nowhere',
    exited: Promise.resolve(
      options.signal === undefined
        ? { type: 'exited', code: options.code ?? 3 }
        : { type: 'killed', signal: options.signal },
    ),
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
    finish: () => finished.resolve({ lastWords: '', isLost: false }),
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

test.each([
  [0, 'succeeded'],
  [3, 'failed'],
] as const)('an execution that is over once its agent has exited keeps the result: %i, %s', async (code, result) => {
  const { assignment, types, reached, close, finish } = follow({ code })
  await reached('close')
  expect(assignment.hasExited).toBe(true)
  assignment.stop('abandon')
  close()
  finish()
  expect(await assignment.ended).toMatchObject({ result })
  await assignment.done
  // To the control plane it is over: it hears nothing else of it.
  expect(types()).toEqual(['task_gone'])
})

test('an agent that died while no process of its worker followed it is said to have', async () => {
  const gone = spawnSync('true')
  const { assignment, close, finish, sent } = follow({ pid: gone.pid, signal: 9 })
  close()
  finish()
  await assignment.done
  expect(sent.at(-1)).toMatchObject({
    data: { message: 'The agent was ended by signal 9, together with its worker or while that was away.' },
  })
  const seen = follow({ pid: process.pid, signal: 9 })
  seen.close()
  seen.finish()
  expect(await seen.assignment.ended).toMatchObject({ message: 'The agent was ended by signal 9.' })
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

test('how far a step is is told at once, and not again with every byte', () => {
  const sent: WorkerMessage[] = []
  const reporter = createStepReporter((message) => void sent.push(message), refs)
  reporter.started('image_pull')
  for (let current = 1; current < 1_000; current++) reporter.progress('image_pull', { current, total: 1_000 })
  reporter.progress('sidecars', { text: 'first of two' })
  reporter.completed('image_pull')
  expect(sent.map(({ data }) => data)).toMatchObject([
    { step: 'image_pull', status: 'started' },
    { step: 'image_pull', status: 'progress', progress: { current: 1, total: 1_000, unit: 'bytes' } },
    { step: 'sidecars', status: 'progress', detail: 'first of two' },
    { step: 'image_pull', status: 'completed', duration_ms: expect.any(Number) },
  ])
})
