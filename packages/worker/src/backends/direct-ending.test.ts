import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { stateMark } from '../installation.ts'
import type { TaskRecord } from '../task-folder.ts'
import { endEverything, endPersistently } from './direct-ending.ts'

/** Which processes are a task's, where another installation may have given the same user to one of its own. */

const installationId = randomUUID()
const uid = 65_503

function contextOf(executionId: string) {
  const record: TaskRecord = {
    version: 1,
    worker_id: 'worker',
    server_url: 'http://127.0.0.1:1',
    task_id: randomUUID(),
    execution_id: executionId,
    uid,
    workspace: '/nowhere',
    removes_workspace: false,
    worker: null,
    process: null,
    started_at: new Date().toISOString(),
  }
  return { record, installationId, log: pino({ level: 'silent' }) }
}

/** As the first process of a task, or one that has left it: `parent` is what stands between it and us. */
function daemon(env: NodeJS.ProcessEnv, user?: number) {
  const child = spawn('sleep', ['613'], { env: { PATH: process.env.PATH, ...env }, uid: user, stdio: 'ignore' })
  return {
    child,
    gone: once(child, 'exit'),
    isRunning: () => child.exitCode === null && child.signalCode === null,
    [Symbol.dispose]: () => child.kill('SIGKILL'),
  }
}

const mark = (installation: string, executionId: string) => ({
  OZ_EXECUTION_ID: executionId,
  OZ_WORKER_STATE: stateMark(installation, executionId),
})

const isRoot = process.getuid?.() === 0

test.skipIf(!isRoot)('what runs as the user of a task is ended with it, whatever it is marked with', async () => {
  const executionId = randomUUID()
  using bare = daemon({}, uid)
  using dressed = daemon(mark(randomUUID(), randomUUID()), uid)
  expect(await endEverything(contextOf(executionId), undefined)).toEqual([])
  await Promise.all([bare.gone, dressed.gone])
})

test.skipIf(!isRoot)('a task of another installation that was given the same user goes on', async () => {
  const executionId = randomUUID()
  const theirs = mark(randomUUID(), randomUUID())
  using shim = daemon(theirs)
  using agent = daemon(theirs, uid)
  using tool = daemon({}, uid)
  using ours = daemon(mark(installationId, executionId))
  expect(await endPersistently(contextOf(executionId), undefined)).toBe(true)
  await ours.gone
  expect([shim, agent, tool].map((one) => one.isRunning())).toEqual([true, true, true])
})
