import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, expect, inject, test } from 'vitest'
import { listContainers } from '../../packages/worker/src/engine/containers.ts'
import { listVolumes } from '../../packages/worker/src/engine/volumes.ts'
import { makeSceneAgent, openBackendScene, sceneAssignment } from '../support/docker-backend.ts'
import { openTestEngine } from '../support/test-images.ts'
import { programs } from '../support/worker-program.ts'

beforeAll(async () => {
  if (inject('dockerEngine')) await makeSceneAgent()
})

const run = promisify(execFile)

/** Its exit code, and what it says. */
async function oz(...args: string[]) {
  const env = { PATH: process.env.PATH, HOME: '/nonexistent', ...inject('dockerEngine')?.env }
  try {
    const { stdout } = await run(process.execPath, [join(programs, 'oz.mjs'), ...args], { env })
    return { code: 0, stdout, stderr: '' }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { code, stdout, stderr }
  }
}

test('a container that was kept is shown with the ways into it, and removed with its volumes', async () => {
  await using scene = await openBackendScene({ cleanup: false })
  const assignment = sceneAssignment('echo kept >file; exit 4')
  const task = await scene.start(assignment)
  await task.exited
  await task.close(undefined)
  await scene.backend.remove(assignment.execution_id)
  await scene.backend.sweep()
  const { task_id: runId, execution_id: executionId } = assignment
  const shown = await oz('worker', 'inspect', runId)
  expect(shown.stdout).toContain(`docker logs ${task.place.split(' ')[1]}`)
  expect(shown.stdout).toMatch(/state +exited, exit code 4/)
  const { stdout } = await oz('worker', 'inspect', runId, '--output-format', 'json')
  expect(JSON.parse(stdout)).toMatchObject([
    { run_id: runId, execution_id: executionId, exit_code: 4, worker_id: 'w1' },
  ])
  expect((await oz('worker', 'inspect', runId, '--remove')).stdout).toContain('Removed oz-task-')
  await using engine = openTestEngine(inject('dockerEngine') ?? { socket: '' })
  const labels = [`oz-task-id=${runId}`]
  expect([...(await listContainers(engine, { labels })), ...(await listVolumes(engine, { labels }))]).toEqual([])
})

test('a run of which nothing was kept is said to have nothing', async () => {
  const { code, stderr } = await oz('worker', 'inspect', randomUUID())
  expect(code).not.toBe(0)
  expect(stderr).toContain('No container of run')
})
