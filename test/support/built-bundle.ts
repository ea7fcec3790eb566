import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { TestProject } from 'vitest/node'

const root = fileURLToPath(new URL('../../', import.meta.url))

declare module 'vitest' {
  interface ProvidedContext {
    /** Folder of the agent bundle, made of this tree. Empty where there is no engine that would need one. */
    agentBundle: string
  }
}

/** The agent as it is in this tree, for all tests of the run: some 10 s, and a minute the first time on a machine. */
export async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  if (process.env.OZ_AGENT_BUNDLE) {
    project.provide('agentBundle', process.env.OZ_AGENT_BUNDLE)
    return undefined
  }
  const folder = join(root, 'node_modules', '.cache', `openoz-test-build-${process.pid}`)
  await promisify(execFile)(process.execPath, [join(root, 'scripts/build.ts'), '--into', folder], { cwd: root })
  project.provide('agentBundle', join(folder, 'agent'))
  return () => rm(folder, { recursive: true, force: true })
}
