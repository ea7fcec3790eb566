import { expect, test } from 'vitest'
import { inspectContainer } from '../../packages/worker/src/engine/containers.ts'
import { makeSceneAgent, openBackendScene, sceneAssignment } from '../support/docker-backend.ts'
import { startEngine } from '../support/docker-engine.ts'
import { until } from '../support/poll.ts'
import { openTestEngine, prepareImages } from '../support/test-images.ts'

async function scene(options: { liveRestore?: boolean } = {}) {
  const engine = await startEngine(options)
  try {
    await prepareImages(engine, ['musl'])
    await makeSceneAgent({ socket: engine.socket, folder: engine.folder, env: engine.env })
    const backend = await openBackendScene({ engine })
    return {
      ...backend,
      engine,
      async [Symbol.asyncDispose]() {
        await backend[Symbol.asyncDispose]()
        await engine[Symbol.asyncDispose]()
      },
    }
  } catch (error) {
    await engine[Symbol.asyncDispose]()
    throw error
  }
}

const never = new AbortController().signal

test('an engine that is killed and leaves its containers running costs nothing', async () => {
  await using place = await scene({ liveRestore: true })
  const assignment = sceneAssignment('sleep 300')
  const task = await place.start(assignment)
  let hasEnded = false
  void task.exited.then(() => {
    hasEnded = true
  })
  await place.engine.kill()
  await place.engine.start()
  await using engine = openTestEngine(place.engine)
  expect((await inspectContainer(engine, task.place.split(' ')[1] ?? ''))?.State.Running).toBe(true)
  expect(hasEnded).toBe(false)
  const stopping = task.stop(0)
  expect(await task.exited).toEqual({ type: 'killed', signal: 9 })
  await stopping
  await task.close('cancel')
  await place.backend.remove(assignment.execution_id)
})

test('while the engine is away no task is taken, and is again when it is back', async () => {
  await using place = await scene()
  expect(place.backend.lackOfRoom()).toBeUndefined()
  await place.engine.stop()
  await until(() => place.backend.lackOfRoom() !== undefined)
  expect(place.backend.lackOfRoom()).toMatch(/cannot be reached: it has stopped answering/)
  await place.engine.start()
  await until(() => place.backend.lackOfRoom() === undefined)
})

test.each(['kill', 'stop'] as const)('a container that ends with its engine (%s) is told as that', async (how) => {
  await using place = await scene()
  const assignment = sceneAssignment('sleep 300')
  const task = await place.start(assignment)
  await place.engine[how]()
  await place.engine.start()
  await until(() => task.exited, Boolean, { timeoutMs: 20_000 })
  await task.close(undefined)
  expect(await task.finish({ abandoned: never, signal: never })).toMatchObject({ isEngineStopped: true })
  await place.backend.remove(assignment.execution_id)
})

test('a stop of a task while its engine is away is done when that is back', async () => {
  await using place = await scene({ liveRestore: true })
  const assignment = sceneAssignment('trap "" TERM; while :; do sleep 0.1; done')
  const task = await place.start(assignment)
  await place.engine.kill()
  const stopping = task.stop(0)
  await place.engine.start()
  await stopping
  expect(await task.exited).toEqual({ type: 'killed', signal: 9 })
  await task.close('cancel')
  await place.backend.remove(assignment.execution_id)
})

test('a task that ended with its engine while no worker was there is told as that by the next', async () => {
  await using place = await scene()
  const assignment = sceneAssignment('sleep 300')
  const task = await place.start(assignment)
  await place.backend.leave({ isAllTold: false })
  await place.engine.stop()
  await place.engine.start()
  await using next = await openBackendScene({ engine: place.engine, folder: place.folder })
  const [adopted, ...more] = await next.backend.adopt(() => next.reporter)
  expect(more).toEqual([])
  expect(adopted).toMatchObject({ phase: 'running', refs: { execution_id: assignment.execution_id } })
  const found = await adopted?.task
  expect(found?.place).toBe(task.place)
  await found?.exited
  await found?.close(undefined)
  expect(await found?.finish({ abandoned: never, signal: never })).toMatchObject({ isEngineStopped: true })
  await next.backend.remove(assignment.execution_id)
})
