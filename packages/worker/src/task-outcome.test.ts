import { expect, test } from 'vitest'
import type { TaskExit, TaskRemains } from './backends/backend.ts'
import { outcomeOf } from './task-outcome.ts'

function outcome(exit: TaskExit, remains: Partial<TaskRemains> = {}) {
  return outcomeOf({ exit, lastWords: '', isLost: false, ...remains }, undefined)
}

const killed: TaskExit = { type: 'exited', code: 137 }

test('a task that its engine ended for memory has used too much, and only that', () => {
  expect(outcome(killed, { outOfMemory: 'task' })).toMatchObject({ reason: 'container_oom', exitCode: 137 })
  expect(outcome({ type: 'exited', code: 3 }, { outOfMemory: 'task' })).toMatchObject({ reason: 'container_exit' })
})

test('the end of a task that ran out of memory names how much it had', () => {
  const limited = outcome(killed, { outOfMemory: 'task', memoryLimitBytes: 512 * 1024 ** 2 })
  expect(limited.message).toContain('The agent ran out of memory: its container is limited to 512 MiB.')
  expect(outcome(killed, { outOfMemory: 'task' }).message).toContain('The agent ran out of memory. ')
})

test('a killed agent is never called out of memory without a word of the kernel', () => {
  const { reason, message } = outcome(killed)
  expect(reason).toBe('container_exit')
  expect(message).not.toContain('memory')
  expect(outcome({ type: 'killed', signal: 9 })).toMatchObject({ reason: 'agent_invocation', exitCode: 137 })
})

test('on a machine that ran out of memory it may have been anybody’s', () => {
  const { reason, message } = outcome({ type: 'killed', signal: 9 }, { outOfMemory: 'machine' })
  expect(reason).toBe('agent_invocation')
  expect(message).toContain('memory ran out')
})

test('what ended with its engine was lost from sight, and is tried again', () => {
  const stopped = outcome({ type: 'exited', code: 143 }, { isEngineStopped: true })
  expect(stopped).toMatchObject({ result: 'failed', reason: 'container_wait', exitCode: 143 })
  expect(stopped.message).toContain('live-restore')
})
