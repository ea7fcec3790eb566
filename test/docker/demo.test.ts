import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, inject, test } from 'vitest'
import { makeGitImage } from '../support/container-git.ts'
import { startEngine } from '../support/docker-engine.ts'
import { objectsOf } from '../support/test-images.ts'

const run = promisify(execFile)
const program = fileURLToPath(new URL('../../demo/demo.ts', import.meta.url))

test('the demo with `--backend docker` repairs the sample project in a container, and leaves nothing on the engine', {
  timeout: 180_000,
}, async () => {
  const image = 'oz-test/node-and-git:1'
  await using engine = await startEngine()
  await makeGitImage(engine, image, { node: realpathSync(process.execPath) })
  // Short: there will be sockets in it.
  const folder = mkdtempSync('/tmp/oz-dd-')
  using _folder = { [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }) }
  // As root the database is another user, who has to be able to pass through.
  await run('chmod', ['711', folder])
  const [home, temporary] = [join(folder, 'home'), join(folder, 'tmp')]
  mkdirSync(home)
  mkdirSync(temporary, { mode: 0o711 })
  const env = { PATH: process.env.PATH, HOME: home, TMPDIR: temporary, OZ_AGENT_BUNDLE: inject('agentBundle') }
  const flags = ['--backend', 'docker', '--image', image, '--output-format', 'json']
  const { stdout, stderr } = await run(process.execPath, [program, ...flags], { env: { ...env, ...engine.env } })
  expect(stderr).toMatch(/Backend: docker \(/)
  const result = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Record<
    'run_id' | 'branch' | 'repository',
    string
  >
  expect(result).toMatchObject({ state: 'SUCCEEDED', branch: `oz/${result.run_id}` })
  const git = (...args: string[]) => run('git', ['-C', result.repository, ...args])
  await git('switch', '--quiet', result.branch)
  await run(process.execPath, ['--test'], { cwd: result.repository, env: { PATH: process.env.PATH } })
  expect(await objectsOf(engine)).toEqual([])
})
