import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { startControlPlane } from '../test-support/control-plane.ts'
import { until } from '../test-support/until.ts'
import { createFolder, startWorker } from '../test-support/worker.ts'

/** What another backend has left in a state folder that both share: whoever looks for a process of it would find none, and call it dead. */

const anHourAgo = new Date(Date.now() - 3_600_000)

/** A task as its worker left it that was killed, with all that tells whose it is. */
function leave(state: string, { backend, workerId, url }: { backend?: string; workerId: string; url: string }) {
  const [executionId, instance] = [randomUUID(), randomUUID()]
  const folders = { task: join(state, 'tasks', executionId), instance: join(state, 'instances', instance) }
  mkdirSync(join(folders.task, 'owner'), { recursive: true })
  mkdirSync(join(folders.task, 'spool'))
  mkdirSync(folders.instance, { recursive: true })
  writeFileSync(
    join(folders.instance, 'worker.json'),
    JSON.stringify({ worker_id: workerId, server_url: url, ...(backend && { backend }) }),
  )
  const record = {
    version: 1,
    worker_id: workerId,
    server_url: url,
    task_id: randomUUID(),
    execution_id: executionId,
    ...(backend && { backend }),
    workspace: '/workspace',
    removes_workspace: false,
    worker: null,
    instance,
    process: null,
    started_at: anHourAgo.toISOString(),
  }
  writeFileSync(join(folders.task, 'task.json'), JSON.stringify(record))
  for (const path of [join(folders.task, 'task.json'), join(folders.task, 'spool'), folders.task])
    utimesSync(path, anHourAgo, anHourAgo)
  return { ...folders, executionId, taskId: record.task_id, name: instance }
}

test('a task of another backend is neither taken over, nor swept, nor ended for a newer execution of its run', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const state = join(folder.path, 'state')
  const ours = leave(state, { backend: 'docker', workerId: 'test-worker', url: cp.url })
  const forgotten = leave(state, { backend: 'docker', workerId: 'test-worker', url: cp.url })
  rmSync(forgotten.instance, { recursive: true })
  const others = leave(state, { backend: 'docker', workerId: 'another', url: cp.url })
  const former = leave(state, { workerId: 'another', url: cp.url })

  await using worker = startWorker(cp, folder.path, { timing: { sweepEveryMs: 100 } })
  const { instances } = await cp.message('worker_hello')
  expect(instances).toHaveLength(1)
  // That of this backend shows that sweeps have been at work.
  await until('a sweep', () => !existsSync(former.task))
  const { execution_id } = cp.assign({ task_id: ours.taskId })
  await cp.outcome(execution_id)
  await until('its folder to go', () => !existsSync(join(state, 'tasks', execution_id)))

  for (const { task } of [ours, forgotten, others])
    expect(readdirSync(task).toSorted()).toEqual(['owner', 'spool', 'task.json'])
  for (const { instance } of [ours, others]) expect(existsSync(join(instance, 'worker.json'))).toBe(true)
  expect(worker.log()).not.toContain('outlived its worker process')
  const ended = [...cp.messagesOf('task_failed'), ...cp.messagesOf('task_completed')]
  expect(ended).toMatchObject([{ data: { execution_id } }])
})

test('what is superseded and another backend has is not called gone', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  const left = leave(join(folder.path, 'state'), { backend: 'docker', workerId: 'test-worker', url: cp.url })
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  const refs = { task_id: left.taskId, execution_id: left.executionId }
  cp.send({ type: 'task_superseded', data: refs })
  const unknown = [1, 2, 3].map(() => ({ task_id: randomUUID(), execution_id: randomUUID() }))
  // One after the other: what is said of the first would have come by then.
  for (const data of unknown) {
    cp.send({ type: 'task_superseded', data })
    await cp.message('task_gone', ({ execution_id }) => execution_id === data.execution_id)
  }
  expect(cp.messagesOf('task_gone').map(({ data }) => data)).toEqual(unknown)
})
