import { execFile, execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../', import.meta.url))
const folder = join(root, 'node_modules', '.cache', 'openoz-test-build')

/** Builds the programs and their agent bundle, in a folder of the tests' own; the bundle's large parts are made once. Resolves with the bundle. */
export async function buildAgentBundle(into: string = folder, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const { stdout } = await run(process.execPath, [join(root, 'scripts', 'build.ts'), '--into', into], {
    cwd: root,
    env,
  })
  if (/not made/.test(stdout)) throw new Error(stdout)
  return join(into, 'agent')
}

/** Why the tests of bundles cannot be done on this machine; undefined when they can. */
export function noBundleBecause(): string | undefined {
  if (process.platform !== 'linux') return 'bundles are made on Linux'
  try {
    execFileSync('patchelf', ['--version'], { stdio: 'ignore' })
    return undefined
  } catch {
    return 'patchelf is not installed'
  }
}
