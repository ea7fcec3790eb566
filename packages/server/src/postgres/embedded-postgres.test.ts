import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { lockDataDir } from './data-dir-lock.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts'
import { findPostmaster, stopPostmaster } from './postmaster.ts'
import { identifyProcess, postgresProcessesOf } from './process-identity.ts'
import { type DatabaseTemplate, makeDatabaseTemplate } from './testing/database-template.ts'
import { isRoot, scratchFolder } from './testing/scratch-folder.ts'
import { serverProcess } from './testing/server-process.ts'

let template: DatabaseTemplate

beforeAll(async () => {
  template = await makeDatabaseTemplate()
})

afterAll(() => template[Symbol.dispose]())

const logged: { level: string; fields: unknown; text: string }[] = []
const logAs = (level: string) => (fields: unknown, text?: string) =>
  void logged.push({ level, fields, text: text ?? '' })
const log = { info: logAs('info'), warn: logAs('warn'), error: logAs('error') }

afterEach(() => {
  logged.length = 0
})

async function query(database: EmbeddedPostgres, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(database.connection)
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}

/** Waits for the database to answer again. */
function eventually(database: EmbeddedPostgres, sql: string): Promise<Record<string, unknown>[]> {
  return vi.waitFor(() => query(database, sql), { timeout: 20_000, interval: 50 })
}

function modeOf(path: string): number {
  return statSync(path).mode & 0o7777
}

test('a first start makes the database, a later one finds its rows', async () => {
  using folder = scratchFolder()
  const dataDir = join(folder.path, 'data')
  {
    await using database = await startEmbeddedPostgres({ dataDir, log })
    expect(database.adopted).toBe(false)
    await query(database, `create table notes as select 'kept' as note`)
    const [row] = await query(
      database,
      `select current_database() as database, pg_encoding_to_char(encoding) as encoding, datlocale as locale,
              current_setting('fsync') as fsync, current_setting('listen_addresses') as addresses,
              current_setting('data_checksums') as checksums
         from pg_database where datname = current_database()`,
    )
    expect(row).toEqual({
      database: 'openoz',
      encoding: 'UTF8',
      locale: 'C.UTF-8',
      fsync: 'on',
      addresses: '',
      checksums: 'on',
    })
  }
  await using database = await startEmbeddedPostgres({ dataDir, log })
  expect(await query(database, 'select note from notes')).toEqual([{ note: 'kept' }])
})

test('the password stays in its file: not in arguments, logs, messages or settings, and files are closed to others', async () => {
  using folder = template.copy()
  await using database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  const { password } = database.connection
  expect(password.length).toBeGreaterThan(40)
  expect(readFileSync(join(folder.path, 'postgres-password'), 'utf8')).toBe(password)
  for (const file of ['postgres.log', 'postgres.conf'])
    expect(readFileSync(join(folder.path, file), 'utf8')).not.toContain(password)
  expect(JSON.stringify(logged)).not.toContain(password)
  expect(readFileSync(`/proc/${database.pid}/cmdline`, 'utf8')).not.toContain(password)
  expect(readFileSync(`/proc/${database.pid}/environ`, 'utf8')).not.toMatch(/VITEST|HOME=/)
  expect(modeOf(join(folder.path, 'postgres-password'))).toBe(0o600)
  expect(modeOf(join(folder.path, 'postgres.log'))).toBe(0o600)
  expect(modeOf(join(folder.path, 'postgres'))).toBe(0o700)
  expect(modeOf(database.connection.host)).toBe(0o700)
  await expect(
    query({ ...database, connection: { ...database.connection, password: 'wrong' } }, 'select 1'),
  ).rejects.toThrow(/password/)
})

test('neither values nor statements reach the log when a statement fails', async () => {
  using folder = template.copy()
  await using database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  await query(database, 'create table secrets (value text primary key)')
  await query(database, `insert into secrets values ('hunter2')`)
  await expect(query(database, `insert into secrets values ('hunter2')`)).rejects.toThrow(/duplicate key/)
  expect(readFileSync(join(folder.path, 'postgres.log'), 'utf8')).not.toContain('hunter2')
})

test('stop leaves no process and no socket, and may be called twice', async () => {
  using folder = template.copy()
  const database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  // A client in the middle of something does not hold it up.
  const client = new pg.Client(database.connection)
  client.on('error', () => {})
  await client.connect()
  const sleeping = client.query('select pg_sleep(60)').catch((error: Error) => error)
  await Promise.all([database.stop(), database.stop()])
  await sleeping
  await client.end().catch(() => {})
  expect(postgresProcessesOf(join(folder.path, 'postgres'))).toEqual([])
  expect(readdirSync(join(folder.path, 'postgres-socket'))).toEqual([])
})

test('a PostgreSQL that follows neither a fast nor an immediate shutdown is killed', async () => {
  using folder = template.copy()
  await using server = await serverProcess(
    folder.path,
    'const db = await startEmbeddedPostgres({ dataDir, log }); say({ pid: db.pid })',
  )
  await server.kill('SIGKILL')
  const postmaster = findPostmaster(join(folder.path, 'postgres'))
  if (!postmaster) throw new Error('the postmaster did not outlive its server')
  // Frozen, it hears nothing short of SIGKILL.
  process.kill(postmaster.pid, 'SIGSTOP')
  const escalations: string[] = []
  const steps = (['SIGINT', 'SIGQUIT', 'SIGKILL'] as const).map((signal) => ({
    signal,
    graceMs: signal === 'SIGKILL' ? 5_000 : 100,
  }))
  await stopPostmaster(postmaster, (signal) => escalations.push(signal), steps)
  expect(escalations).toEqual(['SIGQUIT', 'SIGKILL'])
  expect(identifyProcess(postmaster.pid)).toBeUndefined()
  await vi.waitFor(() => expect(postgresProcessesOf(join(folder.path, 'postgres'))).toEqual([]), { timeout: 10_000 })
})

test('a PostgreSQL whose server was killed goes on, and the next server adopts and finally stops it', async () => {
  using folder = template.copy()
  const script =
    'await lockDataDir(dataDir); const db = await startEmbeddedPostgres({ dataDir, log }); say({ pid: db.pid })'
  await using first = await serverProcess(folder.path, script)
  await first.kill('SIGKILL')

  const lock = await lockDataDir(folder.path)
  const startedAt = performance.now()
  const database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  expect(performance.now() - startedAt).toBeLessThan(2_000)
  expect(database.adopted).toBe(true)
  expect(database.pid).toBe(first.said.pid)
  expect(await query(database, 'select 1 as one')).toEqual([{ one: 1 }])

  await database.stop()
  lock.release()
  expect(identifyProcess(database.pid)).toBeUndefined()
})

test('an adopted PostgreSQL that dies is started again', async () => {
  using folder = template.copy()
  await using first = await serverProcess(
    folder.path,
    'const db = await startEmbeddedPostgres({ dataDir, log }); say({ pid: db.pid })',
  )
  await first.kill('SIGKILL')
  await using database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  process.kill(database.pid, 'SIGKILL')
  await eventually(database, 'select 1')
  expect(database.pid).not.toBe(first.said.pid)
})

test('an adopted PostgreSQL whose socket was cleaned away is replaced', async () => {
  using folder = template.copy()
  await using first = await serverProcess(
    folder.path,
    'const db = await startEmbeddedPostgres({ dataDir, log }); say({ pid: db.pid })',
  )
  await first.kill('SIGKILL')
  spawnSync('rm', [join(folder.path, 'postgres-socket', '.s.PGSQL.5432')])
  await using database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  expect(database.pid).not.toBe(first.said.pid)
  await query(database, 'select 1')
})

test('after kill -9, twice in a row, it is back by itself with every committed row', async () => {
  using folder = template.copy()
  await using database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  const pool = new pg.Pool(database.connection)
  const poolErrors: Error[] = []
  pool.on('error', (error) => poolErrors.push(error))
  await pool.query('create table counted (n int)')
  for (let round = 1; round <= 2; round++) {
    await pool.query('insert into counted values ($1)', [round])
    const { pid } = database
    process.kill(pid, 'SIGKILL')
    // An old connection may be answered once more before it notices.
    await vi.waitFor(() => expect(database.pid).not.toBe(pid), { timeout: 20_000, interval: 20 })
    const count = async () => (await pool.query('select n from counted')).rows.length
    expect(await vi.waitFor(count, { timeout: 20_000, interval: 50 })).toBe(round)
  }
  await pool.end()
  const texts = logged.map(({ text }) => text)
  expect(texts.filter((text) => text === 'PostgreSQL has ended by itself; starting it again')).toHaveLength(2)
  expect(texts.filter((text) => text === 'PostgreSQL runs again')).toHaveLength(2)
})

test('stop during a restart ends the restart', async () => {
  using folder = template.copy()
  const database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  process.kill(database.pid, 'SIGKILL')
  await vi.waitFor(() => expect(logged.some(({ level }) => level === 'error')).toBe(true))
  await database.stop()
  await vi.waitFor(() => expect(postgresProcessesOf(join(folder.path, 'postgres'))).toEqual([]))
})

/** Makes a database whose postmaster.pid is left over, as after a power cut, and puts `pid` into it. */
async function leaveStalePidFile(dataDir: string, edit: (lines: string) => string): Promise<void> {
  const database = await startEmbeddedPostgres({ dataDir, log })
  const file = join(dataDir, 'postgres', 'postmaster.pid')
  const lines = readFileSync(file, 'utf8')
  await database.stop()
  writeFileSync(file, edit(lines), { mode: 0o600 })
  const { uid, gid } = statSync(join(dataDir, 'postgres'))
  chownSync(file, uid, gid)
}

test('a stale pid file whose number now belongs to another program of the same user is no obstacle', async () => {
  using folder = template.copy()
  const { uid, gid } = statSync(join(folder.path, 'postgres'))
  const stranger = spawn('sleep', ['60'], { uid, gid, cwd: '/' })
  try {
    await leaveStalePidFile(folder.path, (lines) => lines.replace(/^\d+/, String(stranger.pid)))
    await using database = await startEmbeddedPostgres({ dataDir: folder.path, log })
    expect(database.adopted).toBe(false)
    expect(await query(database, 'select 1 as one')).toEqual([{ one: 1 }])
    expect(identifyProcess(stranger.pid ?? 0)).toBeDefined()
  } finally {
    stranger.kill('SIGKILL')
  }
})

test.each([
  ['empty', () => ''],
  ['garbage', () => '\0\0\0\0'],
])('a pid file that a power cut left %s is no obstacle', async (_, edit) => {
  using folder = template.copy()
  await leaveStalePidFile(folder.path, edit)
  await using database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  expect(await query(database, 'select 1 as one')).toEqual([{ one: 1 }])
})

test('where the path is too long for a socket a short private folder is used, and taken away by stop', async () => {
  using folder = scratchFolder()
  const dataDir = join(folder.path, 'long-'.repeat(30))
  const script = 'const db = await startEmbeddedPostgres({ dataDir, log }); say(db.connection)'
  await using first = await serverProcess(dataDir, script)
  await first.kill('SIGKILL')

  const database = await startEmbeddedPostgres({ dataDir, log })
  const { host } = database.connection
  expect(host).toBe(first.said.host)
  expect(host.length).toBeLessThan(90)
  expect(modeOf(host)).toBe(0o700)
  expect(await query(database, 'select 1 as one')).toEqual([{ one: 1 }])
  await database.stop()
  expect(existsSync(host)).toBe(false)
})

test('a log of more than 10 MB is put aside at start', async () => {
  using folder = template.copy()
  const logFile = join(folder.path, 'postgres.log')
  writeFileSync(logFile, '')
  truncateSync(logFile, 11e6)
  await using _database = await startEmbeddedPostgres({ dataDir: folder.path, log })
  expect(statSync(logFile).size).toBeLessThan(100_000)
  expect(statSync(`${logFile}.1`).size).toBe(11e6)
})

test('a start that is called off leaves nothing', async () => {
  using folder = scratchFolder()
  const abort = new AbortController()
  const starting = startEmbeddedPostgres({ dataDir: folder.path, log, signal: abort.signal })
  const refused = expect(starting).rejects.toThrow('called off')
  await vi.waitFor(
    () => expect(readdirSync(folder.path).some((name) => name.startsWith('postgres.init-'))).toBe(true),
    { interval: 5 },
  )
  abort.abort(new Error('called off'))
  await refused
  expect(readdirSync(folder.path)).toEqual(['postgres-password'])
})

/** An ordinary user that every Linux system knows by name. */
const daemon = { uid: 1, gid: 1 }

describe.skipIf(!isRoot)('as root (skipped: needs root)', () => {
  test('PostgreSQL runs as user 65534, and as the user itself where that is not root', async () => {
    using folder = scratchFolder()
    await using database = await startEmbeddedPostgres({ dataDir: join(folder.path, 'root'), log })
    expect(statSync(`/proc/${database.pid}`).uid).toBe(65534)

    const dataDir = join(folder.path, 'user')
    mkdirSync(dataDir)
    chownSync(dataDir, daemon.uid, daemon.gid)
    const script = `const db = await startEmbeddedPostgres({ dataDir, log }); process.on('SIGTERM', () => db.stop().then(() => process.exit())); say({ pid: db.pid })`
    await using server = await serverProcess(dataDir, script, daemon)
    expect(server.said).toEqual({ pid: expect.any(Number) })
    expect(statSync(`/proc/${server.said.pid}`).uid).toBe(daemon.uid)
    await server.kill('SIGTERM')
    expect(identifyProcess(Number(server.said.pid))).toBeUndefined()
    expect(modeOf(dataDir)).toBe(0o700)
  })

  test('a user id without a name, which initdb refuses, is explained', async () => {
    using folder = scratchFolder()
    chownSync(folder.path, 1234, 1234)
    await using server = await serverProcess(folder.path, 'await startEmbeddedPostgres({ dataDir, log })', {
      uid: 1234,
      gid: 1234,
    })
    expect(server.said).toMatchObject({
      code: 'postgres_start_failed',
      message: expect.stringMatching(/name for user id 1234.*DATABASE_URL/),
    })
  })

  test('a parent folder that does not let PostgreSQL pass is named', async () => {
    using folder = scratchFolder()
    const closed = join(folder.path, 'closed')
    mkdirSync(join(closed, 'parent'), { recursive: true })
    chmodSync(closed, 0o700)
    await expect(startEmbeddedPostgres({ dataDir: join(closed, 'parent', 'data'), log })).rejects.toMatchObject({
      code: 'data_dir_not_writable',
      message: expect.stringContaining(`${closed} (mode 0700) does not let that user pass; chmod o+x ${closed}`),
    })
  })
})
