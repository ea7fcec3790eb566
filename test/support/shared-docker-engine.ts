import type { TestProject } from 'vitest/node'
import { engineProblem, startEngine, type TestEngine } from './docker-engine.ts'
import { imageProblem, prepareImages, type TestImage } from './test-images.ts'

/** What tests need of the engine that all of a run share. */
export interface SharedEngine {
  socket: string
  folder: string
  env: { DOCKER_HOST: string }
}

declare module 'vitest' {
  interface ProvidedContext {
    /** null: there can be none on this machine; its tests are skipped, visibly. */
    dockerEngine: SharedEngine | null
  }
}

/** One engine for all tests of the project, with the images that are made at once. Tests keep apart by the names of what they make. */
export async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const started = await startWithImages()
  if ('problem' in started) {
    if (process.env.CI) throw new Error(`the tests of the Docker backend cannot run: ${started.problem}`)
    console.error(`NOT TESTED: the Docker backend: ${started.problem}`)
    project.provide('dockerEngine', null)
    return undefined
  }
  const { socket, folder, env } = started
  project.provide('dockerEngine', { socket, folder, env })
  return async () => started[Symbol.asyncDispose]()
}

async function startWithImages(): Promise<TestEngine | { problem: string }> {
  const images: TestImage[] = ['musl', 'static', 'empty']
  const problem = engineProblem() ?? images.map(imageProblem).find((missing) => missing !== undefined)
  if (problem !== undefined) return { problem }
  let engine: TestEngine | undefined
  try {
    engine = await startEngine()
    await prepareImages(engine, images)
    return engine
  } catch (error) {
    // Not every root may: in most containers it has neither the capabilities nor the control groups.
    await engine?.[Symbol.asyncDispose]()
    return { problem: String(error) }
  }
}
