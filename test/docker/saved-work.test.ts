import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, inject, test } from 'vitest'
import { killContainer, listContainers } from '../../packages/worker/src/engine/containers.ts'
import { startControlPlane } from '../support/control-plane.ts'
import { makeSceneAgent, openBackendScene, sceneAssignment } from '../support/docker-backend.ts'
import { startDockerWorker } from '../support/docker-worker.ts'
import { until } from '../support/poll.ts'
import { startScriptedModel } from '../support/scripted-model.ts'
import { imageName, openTestEngine } from '../support/test-images.ts'

const open = () => openTestEngine(inject('dockerEngine') ?? { socket: '' })
const never = new AbortController().signal

beforeAll(async () => {
  if (inject('dockerEngine')) await makeSceneAgent()
})

test('what an agent had done whose container is killed is there for the next one', async () => {
  const steps = [
    { toolCalls: [{ name: 'run_command', arguments: { command: 'echo not-saved-yet > file.txt' } }] },
    { text: 'Never heard.', delayMs: 60_000 },
    { toolCalls: [{ name: 'run_command', arguments: { command: 'cat file.txt | tr a-z A-Z' } }] },
    { text: 'Done.' },
  ]
  await using model = await startScriptedModel({ apiKey: 'sk-test', steps })
  await using cp = await startControlPlane({ env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` } })
  await using _worker = await startDockerWorker(cp)
  const runId = await cp.createRun({
    prompt: 'Write.',
    config: { environment: { docker_image: imageName('musl') }, worker_host: 'w1', idle_timeout_minutes: 0 },
  })
  await until(
    () => model.requests.length,
    (count) => count === 2,
    { timeoutMs: 60_000 },
  )
  await using engine = open()
  const labels = [`oz-task-id=${runId}`]
  const [task] = await listContainers(engine, { labels: [...labels, 'oz-role=task'] })
  await killContainer(engine, task?.Id ?? '')
  const run = await cp.waitFor(runId, 'SUCCEEDED', 40_000)
  expect(run.status_message?.message).toContain('Done.')
  expect(JSON.stringify(model.requests.at(-1)?.body)).toContain('NOT-SAVED-YET')
  const notices = (await cp.eventsOf(runId)).flatMap(({ type, data }) => (type === 'notice' ? [data.text] : []))
  expect(notices).toContainEqual(expect.stringContaining('its worker has saved what it had done'))
  await until(
    () => listContainers(engine, { labels }),
    (left) => left.length === 0,
    { timeoutMs: 20_000 },
  )
})

/** The agent leaves work and dies; `save` is what the same program does when it is asked to save. */
const agent = (save: string) => `
if [ "$2" = save-work ]; then
${save}
fi
mkdir /run/openoz/spool/kept; echo 1 >/run/openoz/spool/lease; rm -f /run/openoz/token; echo unsaved >file; exit 3`

async function endOf(save: string, savingTimeoutMs?: number) {
  await using scene = await openBackendScene({ savingTimeoutMs })
  const assignment = sceneAssignment(agent(save))
  const task = await scene.start(assignment)
  expect(await task.exited).toEqual({ type: 'exited', code: 3 })
  await task.close(undefined)
  const { isLost } = await task.finish({ abandoned: never, signal: never })
  const log = scene.logOf(assignment)
  const spool = readdirSync(join(scene.stateDir, 'tasks', assignment.execution_id, 'spool'))
  await scene.backend.remove(assignment.execution_id)
  await using engine = open()
  expect(await listContainers(engine, { labels: [`oz-task-id=${assignment.task_id}`] })).toEqual([])
  return { isLost, log, spool }
}

test('what saves is the same program in the same surroundings, with the token and without the lease of before', async () => {
  const look = 'echo "saver: $* $(cat file /run/openoz/token)"; [ -s /run/openoz/spool/lease ] && echo leased'
  const { isLost, log, spool } = await endOf(`${look}; rm -r /run/openoz/spool/kept; exit 0`)
  expect(isLost).toBe(false)
  expect(log).toMatch(/saver: agent save-work --server-root-url http:\/\/\S+ unsaved\s+et-secret-token/)
  expect(log).not.toContain('leased')
  expect(spool).toEqual([])
})

test.each([
  ['fails', 'exit 1', undefined],
  ['is killed', 'kill -KILL $$', undefined],
  ['hangs', 'sleep 600', 2_000],
])('where the saver %s, what it would have saved is lost, and nothing of it stays', async (_, save, timeoutMs) => {
  expect(await endOf(save, timeoutMs)).toMatchObject({ isLost: true })
})

test('a saver that the control plane did not answer is tried again', async () => {
  const count = 'echo x >>/workspace/tries; [ "$(cat /workspace/tries | wc -l)" -lt 2 ] && exit 75'
  const { isLost } = await endOf(`${count}; rm -r /run/openoz/spool/kept; exit 0`)
  expect(isLost).toBe(false)
})

test('an earlier execution of the same run is ended and its work saved before the next one starts', async () => {
  await using first = await openBackendScene()
  const save = 'echo saved-by-fence; rm -r /run/openoz/spool/kept; exit 0'
  const former = sceneAssignment(
    `if [ "$2" = save-work ]; then ${save}; fi; mkdir /run/openoz/spool/kept; echo ready; sleep 600`,
  )
  const task = await first.start(former)
  const container = task.place.split(' ')[1] ?? ''
  await using engine = open()
  await until(
    () => engine.json<unknown>('GET', `/containers/${container}/top`).then(JSON.stringify),
    (text) => text.includes('sleep'),
  )
  await first.leave()
  await using second = await openBackendScene({ folder: first.folder })
  const next = sceneAssignment('exit 0', { task_id: former.task_id })
  const started = await second.start(next)
  expect(await started.exited).toEqual({ type: 'exited', code: 0 })
  expect(await listContainers(engine, { labels: [`oz-execution-id=${former.execution_id}`] })).toEqual([])
  expect(second.logOf(former)).toContain('saved-by-fence')
  await started.close(undefined)
  await second.backend.remove(next.execution_id)
  await second.backend.deliver(never)
  expect(readdirSync(join(second.stateDir, 'tasks'))).toEqual([])
})

test('what an agent has saved itself, since it had no control plane, is kept beside the state of its worker', async () => {
  await using scene = await openBackendScene()
  const saved = '/run/openoz/spool/saved-workspace'
  const file = '0199f2ac-5b1e-7c40-9d3e-6f1b2a3c4d5e'
  const assignment = sceneAssignment(
    `mkdir -p ${saved}/deep; cd ${saved}; echo {} >saved.json; echo work >${file}; echo x >other; echo y >deep/${file}; ln -s /etc/passwd link; exit 75`,
  )
  const task = await scene.start(assignment)
  await task.exited
  await task.close(undefined)
  await task.finish({ abandoned: never, signal: never })
  await scene.backend.remove(assignment.execution_id)
  const place = join(scene.stateDir, 'saved-workspaces', assignment.execution_id)
  expect(readdirSync(place).toSorted()).toEqual([file, 'saved.json'])
  expect(readFileSync(join(place, file), 'utf8')).toBe('work\n')
})
