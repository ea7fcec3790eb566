import { readFileSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { makeTestHome, runOz, startOz } from '../test-support/run-program.ts'

const up = ['up', '--listen', '127.0.0.1:0', '--worker-id', 'here', '--output-format', 'ndjson']

/** Processes that have this text in their command line: the folder of a test names everything that the test started. */
async function processesOf(text: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  return pids.filter((pid) => commandLine(pid).includes(text))
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error('it did not happen within 20 s')
    await sleep(50)
  }
}

test.skipIf(process.platform !== 'linux')(
  'one command starts everything, one Ctrl-C stops all of it, and the next start goes on',
  async () => {
    await using home = await makeTestHome()
    const env = {
      ...home.env,
      ANTHROPIC_API_KEY: 'sk-ant-secret-of-the-owner',
      ANTHROPIC_BASE_URL: 'http://127.0.0.1:9',
    }
    const first = startOz(up, env)
    const ready = JSON.parse(await first.line(/server_ready/))
    expect(ready).toMatchObject({ type: 'server_ready', pid: first.child.pid })
    expect(JSON.parse(await first.line(/worker_ready/))).toEqual({
      ...{ type: 'worker_ready', worker_id: 'here' },
      ...{ backend: 'direct', why: 'the default' },
    })

    const login = join(home.folder, 'config', 'openoz', 'config.json')
    expect((await stat(login)).mode & 0o777).toBe(0o600)
    expect(JSON.parse(await readFile(login, 'utf8'))).toMatchObject({ server_url: ready.url })
    expect((await runOz(['worker', 'list', '--output-format', 'json'], home.env)).stdout).toContain(
      '"worker_id":"here"',
    )

    const worker = (await processesOf('oz-agent-worker')).find((pid) => commandLine(pid).includes(home.folder)) ?? 0
    expect(worker).toBeGreaterThan(0)
    expect(commandLine(worker)).not.toContain('wk-')
    expect(readFileSync(`/proc/${worker}/environ`, 'utf8')).not.toContain('sk-ant-secret')

    // As a terminal and npm do it together.
    first.child.kill('SIGINT')
    first.child.kill('SIGINT')
    const end = await first.ended
    expect(end.exitCode).toBe(0)
    expect(`${end.stdout}${end.stderr}`).not.toContain('sk-ant-secret')
    expect(`${end.stdout}${end.stderr}`).not.toMatch(/wk-\w/)
    expect(await processesOf(home.folder)).toEqual([])

    const second = startOz(up, home.env)
    await second.line(/worker_ready/)
    const { stdout } = await runOz(['api-key', 'list', '--output-format', 'json'], home.env)
    const keys = JSON.parse(stdout) as { scope: string; expires_at: string | null }[]
    // Of the worker that runs now; the one before took its key with it.
    const now = Date.now()
    const usable = keys.filter(
      ({ scope, expires_at }) => scope === 'worker' && (expires_at === null || Date.parse(expires_at) > now),
    )
    expect(usable).toHaveLength(1)
    second.child.kill('SIGTERM')
    expect((await second.ended).exitCode).toBe(0)
  },
)

test.skipIf(process.platform !== 'linux')(
  'a worker that dies is started again, and one whose control plane was killed ends',
  async () => {
    await using home = await makeTestHome()
    const program = startOz(up, home.env)
    await program.line(/worker_ready/)
    const workers = async () =>
      (await processesOf('oz-agent-worker')).filter((pid) => commandLine(pid).includes(home.folder))
    const [dead = 0] = await workers()
    process.kill(dead, 'SIGKILL')
    await until(async () => (await workers()).some((pid) => pid !== dead))

    program.child.kill('SIGKILL')
    await program.ended
    await until(async () => (await workers()).length === 0)

    // The database outlives a killed control plane on purpose; the next start takes it over, and stops it.
    const next = startOz(['up', '--no-worker', '--listen', '127.0.0.1:0', '--output-format', 'ndjson'], home.env)
    await next.line(/server_ready/)
    next.child.kill('SIGTERM')
    expect((await next.ended).exitCode).toBe(0)
    expect(await processesOf(home.folder)).toEqual([])
  },
)

/** None answers here: no test may find the engine of whoever runs it. */
const noEngine = { DOCKER_HOST: 'unix:///nonexistent/docker.sock' }

test.skipIf(process.platform !== 'linux')(
  'with `--backend auto` tasks are processes where no engine answers, and it says so',
  async () => {
    await using home = await makeTestHome()
    const program = startOz([...up, '--backend', 'auto'], { ...home.env, ...noEngine })
    expect(JSON.parse(await program.line(/worker_ready/))).toEqual({
      ...{ type: 'worker_ready', worker_id: 'here', backend: 'direct' },
      why: expect.stringMatching(/^no container engine can be used\. .*nonexistent/),
    })
    program.child.kill('SIGTERM')
    expect((await program.ended).exitCode).toBe(0)
  },
)

test('with `--backend docker` nothing is started where no engine answers, and it says what to do', async () => {
  await using home = await makeTestHome()
  const { exitCode, stderr } = await runOz([...up, '--backend', 'docker'], { ...home.env, ...noEngine })
  expect(exitCode).toBe(1)
  expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'engine_unreachable' } })
  await expect(readdir(join(home.folder, 'data'))).rejects.toMatchObject({ code: 'ENOENT' })
  const wrong = await runOz(['up', '--backend', 'kubernetes'], home.env)
  expect(wrong.exitCode).toBe(2)
  expect(wrong.stderr).toContain('direct, docker')
})
