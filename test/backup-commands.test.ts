import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createApiClient } from '@openoz/protocol'
import { writeBackup } from '@openoz/server'
import pg from 'pg'
import pino from 'pino'
import { expect, test } from 'vitest'
import { makeRepository } from './support/agent-fixture.ts'
import { backUp, filledTables, installationOf, letPass, masterKeyOf } from './support/backups.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { startScriptedModel } from './support/scripted-model.ts'
import { createTestDatabase, type TestDatabase } from './support/test-database.ts'
import { programs } from './support/worker-program.ts'

interface Program {
  kill(signal: NodeJS.Signals): void
  ended: Promise<{ code: number | null; stdout: string; stderr: string }>
  stdout(): string
}

function oz(args: string[], env: NodeJS.ProcessEnv): Program {
  const child = spawn(process.execPath, [join(programs, 'oz.mjs'), ...args], {
    env: { PATH: process.env.PATH, TMPDIR: process.env.TMPDIR, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk
  })
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk
  })
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, stdout, stderr }))
  return { kill: (signal) => void child.kill(signal), ended, stdout: () => stdout }
}

/** Somebody else has the table, so the program stands still in the middle. */
async function holdTable(database: TestDatabase, mode: string): Promise<AsyncDisposable> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  await client.query(`begin; lock table repository_skills in ${mode} mode`)
  return { [Symbol.asyncDispose]: () => client.end() }
}

const connections = (database: TestDatabase, condition = 'true') =>
  database.query(
    `select from pg_stat_activity where datname = current_database() and application_name = 'openoz backup' and ${condition}`,
  )

async function untilWaiting(database: TestDatabase): Promise<void> {
  await until(
    () => connections(database, `wait_event_type = 'Lock'`),
    ({ length }) => length > 0,
    { timeoutMs: 20_000 },
  )
}

const surroundings = (cp: ControlPlane, database = cp.database) => ({
  HOME: cp.folder,
  DATABASE_URL: database.url,
  OZ_MASTER_KEY_FILE: masterKeyOf(cp),
})

test('a backup that is killed leaves nothing under its name, and one that is stopped leaves nothing at all', {
  timeout: 120_000,
}, async () => {
  await using cp = await startControlPlane()
  const folder = join(cp.folder, 'backups')
  mkdirSync(folder)
  const file = join(folder, 'b.ozb')
  await using held = await holdTable(cp.database, 'access exclusive')
  const killed = oz(['backup', file], surroundings(cp))
  await untilWaiting(cp.database)
  killed.kill('SIGKILL')
  await killed.ended
  const [left, ...others] = readdirSync(folder)
  expect([left?.endsWith('.partial'), others]).toEqual([true, []])
  expect(statSync(join(folder, left ?? '')).mode & 0o777).toBe(0o600)
  await until(
    () => connections(cp.database, `state <> 'idle'`),
    ({ length }) => length <= 1,
  )

  const stopped = oz(['backup', file], surroundings(cp))
  await until(() => readdirSync(folder).length === 2)
  await untilWaiting(cp.database)
  stopped.kill('SIGTERM')
  expect((await stopped.ended).code).toBe(143)
  expect(readdirSync(folder)).toEqual([left])
  await held[Symbol.asyncDispose]()
  const whole = oz(['backup', file, '--output-format', 'json'], surroundings(cp))
  const { code, stdout } = await whole.ended
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ type: 'backup', file, bytes: statSync(file).size, tables: { runs: 0 } })
})

test('stopped at any moment, a backup ends and leaves nothing', { timeout: 120_000 }, async () => {
  await using cp = await startControlPlane()
  const folder = join(cp.folder, 'backups')
  mkdirSync(folder)
  await using _held = await holdTable(cp.database, 'access exclusive')
  for (let afterMs = 0; afterMs < 80; afterMs += 2) {
    const writing = writeBackup(installationOf(cp), join(folder, 'b.ozb'), {
      log: pino({ level: 'silent' }),
      signal: AbortSignal.timeout(afterMs),
    })
    await expect(writing).rejects.toThrow()
    expect(readdirSync(folder)).toEqual([])
  }
})

test('a restore that is killed leaves an empty target, which the next one takes', { timeout: 120_000 }, async () => {
  await using cp = await startControlPlane()
  await cp.createRun()
  const { file } = await backUp(cp)
  await using target = await createTestDatabase()
  const before = await filledTables(target)
  const held = await holdTable(target, 'share')
  const env = surroundings(cp, target)
  const killed = oz(['restore', file], env)
  await untilWaiting(target)
  killed.kill('SIGKILL')
  await killed.ended
  await held[Symbol.asyncDispose]()
  await until(
    () => connections(target),
    ({ length }) => length === 0,
  )
  expect(await filledTables(target)).toEqual(before)
  const { code, stdout } = await oz(['restore', file, '--output-format', 'json'], env).ended
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ type: 'restore', runs: { ended: 0, queued: 1 }, tables: { runs: 1 } })
  const again = await oz(['restore', file, '--output-format', 'json'], env).ended
  expect([again.code, JSON.parse(again.stderr).error.code]).toEqual([1, 'restore_not_empty'])
})

test('what takes longer than a second says so on stderr', { timeout: 60_000 }, async () => {
  await using cp = await startControlPlane()
  const held = await holdTable(cp.database, 'access exclusive')
  const program = oz(['backup', join(cp.folder, 'b.ozb')], surroundings(cp))
  await untilWaiting(cp.database)
  const from = performance.now()
  await until(() => performance.now() - from > 1_100)
  await held[Symbol.asyncDispose]()
  const { stderr, stdout } = await program.ended
  expect(stderr).toMatch(/^reading \w+: \d+ kB$/m)
  expect(stdout).toMatch(/^Backed up 0 runs with 0 events to .*b\.ozb \(\d+ kB\)\.\n$/)
})

/** `oz up` in a home of its own. */
async function startMachine(home: string, model: { url: string }) {
  mkdirSync(home, { recursive: true, mode: 0o755 })
  const env = {
    HOME: home,
    XDG_STATE_HOME: join(home, 'state'),
    OPENAI_API_KEY: 'sk',
    OPENAI_BASE_URL: `${model.url}/v1`,
  }
  const dataDir = join(home, 'data')
  const args = ['--listen', '127.0.0.1:0', '--worker-id', 'here', '--data-dir', dataDir]
  const up = oz(['up', ...args, '--output-format', 'ndjson'], env)
  const failed = up.ended.then(({ stderr }) => Promise.reject(new Error(`it ended:\n${stderr}`)))
  failed.catch(() => {})
  await Promise.race([until(() => up.stdout().includes('worker_ready'), Boolean, { timeoutMs: 60_000 }), failed])
  const { url } = JSON.parse(up.stdout().split('\n')[0] ?? '') as { url: string }
  return {
    dataDir,
    clientFor: (apiKey: string) => createApiClient({ apiKey, fetch: (path, init) => fetch(url + path, init) }),
    async [Symbol.asyncDispose]() {
      up.kill('SIGTERM')
      await up.ended
    },
  }
}

test('a run that had ended on one machine is continued on another one, with its conversation and its work', {
  timeout: 240_000,
}, async () => {
  const folder = letPass(mkdtempSync(join(tmpdir(), 'oz-backup-')))
  const model = await startScriptedModel({
    steps: [
      { toolCalls: [{ name: 'run_command', arguments: { command: 'echo from the first machine > kept.txt' } }] },
      { text: 'It is written.' },
      { toolCalls: [{ name: 'run_command', arguments: { command: 'cat kept.txt' } }] },
      { text: 'It is still there.' },
    ],
  })
  try {
    const repository = makeRepository(join(folder, 'shop'), { 'readme.md': 'a shop' })
    chmodSync(repository, 0o755)
    const file = join(folder, 'backup.ozb')
    let apiKey: string
    let runId: string
    {
      await using first = await startMachine(join(folder, 'first'), model)
      apiKey = readFileSync(join(first.dataDir, 'admin-api-key'), 'utf8').trim()
      const client = first.clientFor(apiKey)
      const environment = { source_repos: [{ url: `file://${repository}` }] }
      const config = { environment, idle_timeout_minutes: 0 }
      runId = (await client.runs.create({ prompt: 'Write it down.', config })).run_id
      await until(
        () => client.runs.get(runId),
        ({ state, is_sandbox_running: runs }) => state === 'SUCCEEDED' && !runs,
        {
          timeoutMs: 60_000,
        },
      )
      const backup = await oz(['backup', file, '--data-dir', first.dataDir], { HOME: folder }).ended
      expect(backup).toMatchObject({ code: 0, stdout: expect.stringContaining('Backed up 1 runs') })
    }
    const secondHome = join(folder, 'second')
    mkdirSync(secondHome, { mode: 0o755 })
    const dataDir = join(secondHome, 'data')
    const key = join(folder, 'first', 'data', 'master.key')
    const noKey = await oz(['restore', file, '--data-dir', dataDir], { HOME: folder }).ended
    expect([noKey.code, noKey.stderr]).toEqual([1, expect.stringContaining('[master_key_invalid]')])
    expect(existsSync(dataDir)).toBe(false)
    const args = ['restore', file, '--master-key-file', key, '--data-dir', dataDir]
    expect(await oz(args, { HOME: folder }).ended).toMatchObject({ code: 0 })
    expect(readFileSync(join(dataDir, 'master.key'), 'utf8')).toBe(readFileSync(key, 'utf8'))
    expect(readdirSync(dataDir)).not.toContain('admin-api-key')

    await using second = await startMachine(secondHome, model)
    const client = second.clientFor(apiKey)
    expect((await client.runs.get(runId)).state).toBe('SUCCEEDED')
    await client.runs.followUp(runId, { message: 'Is it there?' })
    const ended = await until(
      () => client.runs.get(runId),
      ({ state }) => !['QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS'].includes(state),
      {
        timeoutMs: 60_000,
      },
    )
    expect(ended.state).toBe('SUCCEEDED')
    const said = JSON.stringify(model.requests.at(-1)?.body)
    for (const words of ['Write it down.', 'It is written.', 'Is it there?', 'from the first machine'])
      expect(said).toContain(words)
  } finally {
    await model.close()
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
})
