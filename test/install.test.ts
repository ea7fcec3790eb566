import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, type TestContext, test } from 'vitest'
import { until } from './support/poll.ts'
import { startScriptedModel } from './support/scripted-model.ts'

/**
 * What somebody without a clone does: `npm pack`, and `npm install -g` of the tarball. The programs then run with a PATH on which there is
 * nothing but Node and themselves.
 *
 * The tarball's few dependencies come from npm's cache or the registry. Where neither has them the tests are skipped, and say so; in CI
 * they fail.
 */
const run = promisify(execFile)
const root = fileURLToPath(new URL('../', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'oz-install-'))
const prefix = join(folder, 'prefix')
const bin = join(prefix, 'bin')
const env = {
  PATH: [join(folder, 'only-node'), bin].join(':'),
  HOME: join(folder, 'home'),
  TMPDIR: tmpdir(),
  XDG_CONFIG_HOME: join(folder, 'config'),
  XDG_STATE_HOME: join(folder, 'state'),
  OZ_DATA_DIR: join(folder, 'data'),
}
let problem: string | undefined
let tarball = ''

beforeAll(async () => {
  // Tasks and the database run as users of their own.
  chmodSync(folder, 0o755)
  mkdirSync(join(folder, 'only-node'))
  symlinkSync(process.execPath, join(folder, 'only-node', 'node'))
  const pack = ['pack', '--pack-destination', folder, '--loglevel=error']
  await run('npm', pack, { cwd: join(root, 'packages', 'cli'), maxBuffer: 1e8 })
  tarball = join(folder, readdirSync(folder).find((name) => name.endsWith('.tgz')) ?? '')
  const flags = ['--prefix', prefix, '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error']
  await run('npm', ['install', '-g', ...flags, '--fetch-retries=1', tarball], { cwd: folder }).catch(
    (error: { stderr: string }) => {
      if (process.env.CI === 'true' || !isOffline(error.stderr)) throw error
      problem = error.stderr.trim().split('\n')[0]
    },
  )
}, 300_000)

afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))

function isOffline(text: string): boolean {
  return /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ENOTCACHED|EIDLETIMEOUT)\b/.test(text)
}

function needsInstall(context: TestContext): void {
  if (problem === undefined) return
  console.error(`NOT TESTED: the tarball could not be installed, no registry: ${problem}`)
  context.skip('no package registry can be reached')
}

test('the tarball holds programs and licences: no sources, tests or maps, and no path of where it was packed', async () => {
  const { stdout } = await run('tar', ['-tzf', tarball])
  const files = stdout.trim().split('\n')
  expect(files).toEqual(expect.arrayContaining(['package/dist/LICENSE', 'package/dist/THIRD-PARTY-NOTICES.txt']))
  const kinds =
    /^package\/(package\.json|(bin|dist)\/[^/]+\.(mjs|cjs|wasm)|dist\/(LICENSE|install\.sh|[\w-]+\.txt|migrations\/\w+\.sql|api-page\/[\w-]+\.(js|css)|bundle\/[a-z-]+))$/
  expect(files.filter((file) => !kinds.test(file))).toEqual([])
  const unpacked = await run('tar', ['-xzOf', tarball], { maxBuffer: 1e8, encoding: 'latin1' })
  expect(unpacked.stdout.includes(root)).toBe(false)
  expect(statSync(tarball).size).toBeLessThan(5e6)
})

describe('after `npm install -g` of the tarball, on a machine with nothing but Node', () => {
  test('both programs are there and say their version', async (context) => {
    needsInstall(context)
    const { version } = JSON.parse(await readFile(join(root, 'packages/cli/package.json'), 'utf8')) as {
      version: string
    }
    for (const name of ['oz', 'oz-agent-worker']) {
      expect((await run(join(bin, name), ['--version'], { env })).stdout).toBe(`${version}\n`)
    }
  })

  test('`oz up` serves, a second worker connects, and a run succeeds on it', { timeout: 120_000 }, async (context) => {
    needsInstall(context)
    await using model = await startScriptedModel({ handler: () => ({ text: 'Hello from the tarball.' }) })
    await using up = start('oz', ['up', '--listen', '127.0.0.1:0', '--output-format', 'ndjson'], {
      OPENAI_API_KEY: 'sk-test',
      OPENAI_BASE_URL: `${model.url}/v1`,
    })
    const ready = JSON.parse(await up.line(/server_ready/)) as { url: string }
    await up.line(/worker_ready/)
    const apiKey = (await readFile(join(env.OZ_DATA_DIR, 'admin-api-key'), 'utf8')).trim()
    const flags = ['--worker-id', 'installed', '--backend', 'direct', '--drain', 'stop', '--server-url', ready.url]
    const state = { OZ_API_KEY: apiKey, XDG_STATE_HOME: join(folder, 'second') }
    await using worker = start('oz-agent-worker', flags, state)
    await worker.line(/Listening for tasks/)

    const args = ['agent', 'run-cloud', '--prompt', 'say hello', '--host', 'installed', '--watch']
    const { stdout } = await run(join(bin, 'oz'), args, { env })
    expect(stdout).toContain('Hello from the tarball.')
    expect(stdout).toContain('SUCCEEDED')
    await worker.stop()
    await up.stop()
    expect([worker.child.exitCode, up.child.exitCode]).toEqual([0, 0])
  })
})

function start(program: string, args: string[], more: Record<string, string>) {
  const child: ChildProcess = spawn(join(bin, program), args, { env: { ...env, ...more } })
  let output = ''
  const collect = (chunk: Buffer) => {
    output += chunk
  }
  child.stdout?.on('data', collect)
  child.stderr?.on('data', collect)
  const ended = once(child, 'close')
  const stop = async () => {
    child.kill('SIGTERM')
    await ended
  }
  return {
    child,
    stop,
    /** The first line of what it says that fits. */
    async line(pattern: RegExp): Promise<string> {
      const find = () => output.split('\n').find((line) => pattern.test(line))
      await until(
        () => find() ?? (child.exitCode === null ? undefined : 'ended'),
        (found) => found !== undefined,
        {
          timeoutMs: 60_000,
        },
      )
      const found = find()
      if (found === undefined) throw new Error(`${program} ended before it said ${pattern}:\n${output}`)
      return found
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) await stop()
    },
  }
}
