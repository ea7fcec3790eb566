import { beforeAll, expect, inject, test } from 'vitest'
import { makeSceneAgent, openBackendScene, sceneAssignment } from '../support/docker-backend.ts'

beforeAll(async () => {
  if (inject('dockerEngine')) await makeSceneAgent()
})

test('a task sees its socket to the control plane, and can neither write beside it nor put another thing in its place', async () => {
  await using scene = await openBackendScene({ docker: { network: 'none' } })
  const at = '/run/openoz-server'
  const script = [
    `[ -S ${at}/server.sock ] && echo socket`,
    `touch ${at}/x 2>/dev/null || echo closed`,
    `rm -f ${at}/server.sock 2>/dev/null; ln -s /etc/passwd ${at}/server.sock 2>/dev/null`,
    `[ -S ${at}/server.sock ] && echo same`,
  ].join('; ')
  const assignment = sceneAssignment(script)
  const task = await scene.start(assignment)
  await task.exited
  await task.close(undefined)
  expect(scene.logOf(assignment)).toMatch(/socket\n[\s\S]*closed\n[\s\S]*same/)
  await scene.backend.remove(assignment.execution_id)
})
