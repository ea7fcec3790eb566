import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { keepRoomForEnd, readEnd, writeEnd } from './task-end.ts'
import { taskFolder } from './task-folder.ts'
import { startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

/** A state folder on a disk of its own; workspaces beside it. Needs the right to mount, which containers of CI may not have. */
let folder: ReturnType<typeof createFolder>
let stateDir: string
beforeEach(({ skip }) => {
  folder = createFolder()
  stateDir = join(folder.path, 'state')
  mkdirSync(stateDir)
  const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m,mode=0755', 'tmpfs', stateDir])
  if (status !== 0) skip('mounting is not permitted here: a full disk is not tested')
})
afterEach(() => {
  spawnSync('umount', ['-l', stateDir])
  folder[Symbol.dispose]()
})

const fill = () => spawnSync('dd', ['if=/dev/zero', `of=${stateDir}/ballast`, 'bs=4096'])

test('a worker without room for a task leaves offers to others, says so once, and takes them when there is room', async () => {
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  fill()
  for (let i = 0; i < 2; i++) {
    const { execution_id } = cp.assign()
    const words = expect.stringMatching(/^No space is left for a new task in .*state \(0 KiB free\)/)
    expect(await cp.message('task_rejected', (data) => data.execution_id === execution_id)).toMatchObject({
      reason: words,
    })
  }
  expect(cp.messagesOf('task_claimed')).toEqual([])
  expect(worker.lines.filter((line) => line.includes('No new tasks are taken for now'))).toHaveLength(1)

  rmSync(join(stateDir, 'ballast'))
  const { execution_id } = cp.assign()
  expect((await cp.outcome(execution_id)).type).toBe('task_completed')
  expect(worker.log()).toContain('Tasks are taken again')
})

test('a worker without inodes for a task leaves offers to others', async () => {
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path)
  await worker.listening()
  const used = Number(execFileSync('df', ['--output=iused', stateDir]).toString().split('\n')[1])
  execFileSync('mount', ['-o', `remount,nr_inodes=${used + 400}`, stateDir])
  for (let i = 0; i < 398; i++) writeFileSync(join(stateDir, `ballast-${i}`), '')
  const { execution_id } = cp.assign()
  expect(await cp.message('task_rejected')).toMatchObject({
    execution_id,
    reason: expect.stringMatching(/No space is left for a new task in .* \(2 inodes free\)/),
  })
})

test.each([
  ['exit 1', 1],
  ['exit 0', 0],
  ['kill -KILL $$', 137],
])('on a full disk the exit code is known, and a failure is told as disk_full: %s', async (end, exitCode) => {
  await using cp = await startControlPlane()
  const oz = `: >${folder.path}/ready; until [ -e ${folder.path}/go ]; do sleep 0.05; done; ${end}`
  await using worker = startWorker(cp, folder.path, {
    oz,
    direct: { workspaceRoot: join(folder.path, 'workspaces'), readablePaths: [folder.path] },
  })
  await worker.listening()
  execFileSync('chmod', ['0777', folder.path])
  const { execution_id } = cp.assign()
  await cp.message('task_step', ({ step, status }) => step === 'start' && status === 'completed')
  await until('the agent', () => existsSync(join(folder.path, 'ready')))
  fill()
  execFileSync('touch', [join(folder.path, 'go')])
  const outcome = await cp.outcome(execution_id)
  if (exitCode === 0) {
    expect(outcome.type).toBe('task_completed')
    return
  }
  expect(outcome).toMatchObject({
    type: 'task_failed',
    data: {
      failure_reason: 'disk_full',
      exit_code: exitCode,
      message: expect.stringMatching(/^No space is left for the run in .*state\/tasks\/.* \(0 KiB free\)/),
    },
  })
})

test('the end of a task is written down on a full disk, once for sure', async () => {
  const paths = taskFolder(stateDir, '0197c0de-0000-7000-8000-000000000000')
  mkdirSync(paths.folder, { recursive: true })
  await keepRoomForEnd(paths)
  fill()
  const end = {
    version: 1 as const,
    exit: { type: 'exited' as const, code: 3 },
    last_words: 'ö'.repeat(2_000),
    ran_out_of_memory: false,
    ended_at: new Date().toISOString(),
  }
  await writeEnd(paths, end)
  expect(await readEnd(paths)).toEqual(end)
  expect(readdirSync(paths.folder)).toContain('end.json')
})
