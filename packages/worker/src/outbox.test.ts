import type { WorkerMessage } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { Outbox } from './outbox.ts'

const ref = (n: number) => ({ task_id: `task-${n}`, execution_id: `execution-${n}` })
const claim = (n: number): WorkerMessage => ({ type: 'task_claimed', data: ref(n) })
const done = (n: number): WorkerMessage => ({ type: 'task_completed', data: { ...ref(n), message: '' } })
const step = (n: number): WorkerMessage => ({
  type: 'task_step',
  data: { ...ref(n), step: 'start', status: 'started' },
})
const status = (active: number): WorkerMessage => ({ type: 'worker_status', data: { active, draining: false } })

function takeAll(outbox: Outbox): WorkerMessage[] {
  const taken: WorkerMessage[] = []
  for (let message = outbox.take(); message; message = outbox.take()) taken.push(message)
  return taken
}

test('past the limit steps are lost, claims and outcomes never', () => {
  const outbox = new Outbox({ limit: 3 })
  for (let n = 0; n < 10; n++) for (const message of [claim(n), step(n), done(n)]) outbox.push(message)
  const taken = takeAll(outbox)
  expect(taken.filter(({ type }) => type === 'task_completed')).toHaveLength(10)
  expect(taken.filter(({ type }) => type === 'task_claimed')).toHaveLength(10)
  expect(taken.filter(({ type }) => type === 'task_step')).toHaveLength(0)
})

test('only the newest status is sent', () => {
  const outbox = new Outbox()
  outbox.push(status(1))
  outbox.push(claim(1))
  outbox.push(status(2))
  expect(takeAll(outbox)).toEqual([claim(1), status(2)])
})

test('what is not confirmed is said again first, in order, without the steps between', () => {
  const outbox = new Outbox({ keepMs: 0 })
  for (const message of [claim(1), step(1), done(1)]) outbox.push(message)
  takeAll(outbox)
  expect(outbox.isSettled).toBe(false)
  outbox.push(claim(2))
  outbox.reopen()
  expect(takeAll(outbox)).toEqual([claim(1), done(1), claim(2)])
})

test('a pong settles what was written before its ping, and no more', async () => {
  const outbox = new Outbox({ keepMs: 0 })
  outbox.push(claim(1))
  takeAll(outbox)
  const { writes } = outbox
  outbox.push(done(1))
  takeAll(outbox)
  outbox.confirm(writes)
  expect(outbox.isSettled).toBe(false)
  outbox.confirm(outbox.writes)
  expect(outbox.isSettled).toBe(true)
})

test('what was read but perhaps not stored is said again for a while', () => {
  const outbox = new Outbox({ keepMs: 60_000 })
  outbox.push(done(1))
  takeAll(outbox)
  outbox.confirm(outbox.writes)
  expect(outbox.isSettled).toBe(true)
  outbox.reopen()
  expect(takeAll(outbox)).toEqual([done(1)])
})
