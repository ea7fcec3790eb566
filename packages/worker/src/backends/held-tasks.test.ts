import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Dialer } from '@openoz/machine'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { readRecord, type TaskRecord, taskFolder, tasksFolder } from '../task-folder.ts'
import { createFolder } from '../test-support/worker.ts'
import { type HeldTask, HeldTasks } from './held-tasks.ts'

const log = pino({ level: 'silent' })
const whileItLasts = new AbortController().signal

/** One task with a folder of its own, and what is done about it in order. Its token is gone: its spool counts as delivered. */
function hold(stateDir: string, held: Omit<HeldTask<never>, 'lock' | 'context'> = {}) {
  const executionId: string = randomUUID()
  const paths = taskFolder(stateDir, executionId)
  mkdirSync(tasksFolder(stateDir), { recursive: true })
  mkdirSync(paths.spool, { recursive: true })
  writeFileSync(join(paths.spool, 'events-1'), 'what it said last')
  const record: TaskRecord = {
    version: 1,
    worker_id: 'w',
    server_url: 'http://cp',
    task_id: randomUUID(),
    execution_id: executionId,
    workspace: '/nowhere',
    removes_workspace: true,
    worker: null,
    process: null,
    started_at: new Date().toISOString(),
  }
  const done: string[] = []
  const state = { isAtRest: true }
  const tasks = new HeldTasks({
    log,
    deliveryTimeoutMs: 1_000,
    async endAgain() {
      done.push('ended')
      return state.isAtRest
    },
    async release(context) {
      done.push('released')
      return { ...context.record, removes_workspace: false }
    },
    async forget() {
      done.push('forgotten')
    },
  })
  const dialer = {} as Dialer
  const lock = { release: () => void done.push('unlocked') }
  tasks.hold(executionId, { lock, context: { record, paths, dialer, log }, ...held })
  return { tasks, executionId, paths, done, state }
}

test('while what was given up is saved no sweep delivers or removes anything of it, nor does anybody else', async () => {
  using folder = createFolder()
  const { tasks, executionId, paths, done } = hold(folder.path)
  const saving = Promise.withResolvers<void>()
  const givenUp = tasks.giveUp(executionId, async () => {
    await saving.promise
    done.push('saved')
  })
  await tasks.removeAgain()
  await tasks.deliverKept(whileItLasts)
  const removed = tasks.remove(executionId)
  const delivered = tasks.deliverKept(whileItLasts)
  expect(done).toEqual([])
  saving.resolve()
  await Promise.all([givenUp, removed, delivered])
  expect(done[0]).toBe('saved')
  await tasks.removeAgain()
  await tasks.deliverKept(whileItLasts)
  expect(tasks.has(executionId)).toBe(false)
  expect(existsSync(paths.folder)).toBe(false)
})

test('what is given up keeps its spool, and what it was given to is its no more, until a sweep has delivered it', async () => {
  using folder = createFolder()
  const { tasks, executionId, paths, done } = hold(folder.path)
  const giving = tasks.giveUp(executionId, async () => {
    expect(tasks.isOver(executionId)).toBe(false)
    throw new Error('it could not be saved')
  })
  await expect(giving).rejects.toThrow('could not be saved')
  expect(tasks.isOver(executionId)).toBe(true)
  expect(done).toEqual(['released'])
  expect(existsSync(paths.spool)).toBe(true)
  expect(await readRecord(paths)).toMatchObject({ removes_workspace: false })
  await tasks.deliverKept(whileItLasts)
  expect(done).toEqual(['released', 'released', 'forgotten'])
  expect(existsSync(paths.folder)).toBe(false)
})

test('a task of which something runs keeps its files until that has ended', async () => {
  using folder = createFolder()
  const { tasks, executionId, paths, done, state } = hold(folder.path, { mayRun: true })
  state.isAtRest = false
  await tasks.remove(executionId)
  expect(done).toEqual(['ended'])
  expect(existsSync(paths.folder)).toBe(true)
  state.isAtRest = true
  await tasks.removeAgain()
  expect(done).toEqual(['ended', 'ended', 'released', 'forgotten'])
  expect(existsSync(paths.folder)).toBe(false)
})

test('what is to be removed twice at once is removed once', async () => {
  using folder = createFolder()
  const { tasks, executionId, done } = hold(folder.path)
  await Promise.all([tasks.remove(executionId), tasks.remove(executionId), tasks.removeAgain()])
  expect(done).toEqual(['released', 'forgotten'])
})

test('whoever leaves has let go of everything, and says whether an end is still to be told', async () => {
  using folder = createFolder()
  const open = hold(folder.path)
  expect(await open.tasks.leave()).toEqual({ isAllOver: false })
  expect(open.done).toEqual(['unlocked'])
  expect(existsSync(open.paths.folder)).toBe(true)
  const over = hold(folder.path, { task: { mayRun: false, isSpoolKept: true } })
  await over.tasks.remove(over.executionId)
  expect(await over.tasks.leave()).toEqual({ isAllOver: true })
  expect(over.tasks.all()).toEqual([])
})
