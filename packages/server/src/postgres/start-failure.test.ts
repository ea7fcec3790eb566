import { appendFileSync, chownSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { startEmbeddedPostgres } from './embedded-postgres.ts'
import { postgresProcessesOf } from './process-identity.ts'
import { explainStartFailure } from './start-failure.ts'
import { type DatabaseTemplate, makeDatabaseTemplate } from './testing/database-template.ts'
import { canMount, fillDisk, isRoot, tinyDisk } from './testing/scratch-folder.ts'

let template: DatabaseTemplate

beforeAll(async () => {
  template = await makeDatabaseTemplate()
})

afterAll(() => template[Symbol.dispose]())

const log = { info() {}, warn() {}, error() {} }

async function makeAndStop(dataDir: string): Promise<void> {
  await startEmbeddedPostgres({ dataDir, log }).then((database) => database.stop())
}

async function refusal(dataDir: string): Promise<AppError> {
  const error = await startEmbeddedPostgres({ dataDir, log }).then(
    (database) => database.stop().then(() => new Error('it started')),
    (reason: unknown) => reason,
  )
  expect(postgresProcessesOf(join(dataDir, 'postgres'))).toEqual([])
  if (error instanceof AppError) return error
  throw error
}

test('data of another major version is refused with both versions named', async () => {
  using folder = template.copy()
  writeFileSync(join(folder.path, 'postgres', 'PG_VERSION'), '16\n')
  const error = await refusal(folder.path)
  expect(error.code).toBe('postgres_version_mismatch')
  expect(error.message).toMatch(/written by PostgreSQL 16; this program brings 18/)
})

test('a damaged database says the last words of its log', async () => {
  using folder = template.copy()
  rmSync(join(folder.path, 'postgres', 'global', 'pg_control'))
  const error = await refusal(folder.path)
  expect(error.code).toBe('postgres_start_failed')
  expect(error.message).toMatch(/its last words were\n[\s\S]*could not open file .*pg_control/)
})

test('a folder that holds something else is not taken for a database', async () => {
  using folder = template.copy()
  rmSync(join(folder.path, 'postgres', 'PG_VERSION'))
  expect((await refusal(folder.path)).message).toContain('holds no database')
})

test('a lost or changed password file is named', async () => {
  using folder = template.copy()
  const file = join(folder.path, 'postgres-password')
  const password = readFileSync(file, 'utf8')
  appendFileSync(file, 'x')
  expect((await refusal(folder.path)).message).toContain(`the password in ${file} is not the one it was made with`)
  rmSync(file)
  expect((await refusal(folder.path)).message).toContain(`${file} is missing`)
  writeFileSync(file, password)
  await makeAndStop(folder.path)
})

test('a missing system library is named with the way out', () => {
  const output = 'postgres: error while loading shared libraries: libstdc++.so.6: cannot open shared object file'
  const error = explainStartFailure('/tmp', output, '')
  expect(error.message).toMatch(/libstdc\+\+\.so\.6.*DATABASE_URL/)
})

test.skipIf(!isRoot)('a database that belongs to another user is refused (skipped: needs root)', async () => {
  using folder = template.copy()
  chownSync(join(folder.path, 'postgres'), 1234, 1234)
  const error = await refusal(folder.path)
  expect(error.code).toBe('data_dir_foreign_owner')
  expect(error.details).toMatchObject({ dataDir: join(folder.path, 'postgres'), owner: 1234 })
})

describe.skipIf(!canMount)('on a disk of its own (skipped: needs root and the right to mount)', () => {
  test('a disk that fills up during the first start is named, and a later start with space works', async () => {
    using disk = tinyDisk(100)
    fillDisk(disk.path, 30e6)
    const error = await refusal(disk.path)
    expect(error.code).toBe('disk_full')
    expect(error.message).toContain(disk.path)
    expect(error.message).toMatch(/\d+(\.\d)? [kM]B free/)
    expect(readdirSync(disk.path).filter((name) => name.startsWith('postgres.'))).toEqual([])

    rmSync(join(disk.path, 'ballast'))
    await makeAndStop(disk.path)
  })

  test('a full disk at a later start is named, and the data are still there once it has space', async () => {
    using disk = tinyDisk(100)
    await makeAndStop(disk.path)
    fillDisk(disk.path, 0)
    expect((await refusal(disk.path)).code).toBe('disk_full')
    rmSync(join(disk.path, 'ballast'))
    await makeAndStop(disk.path)
  })

  test('a disk that fills up while it runs costs errors, and it goes on by itself once there is space', async () => {
    using disk = tinyDisk(120)
    await using database = await startEmbeddedPostgres({ dataDir: disk.path, log })
    const pool = new pg.Pool(database.connection)
    pool.on('error', () => {})
    await pool.query('create table filler (text text)')
    await pool.query(`insert into filler values ('kept')`)
    fillDisk(disk.path, 1e6)
    const fill = async () => {
      for (;;) await pool.query(`insert into filler select repeat(md5(n::text), 200) from generate_series(1, 2000) n`)
    }
    await expect(fill()).rejects.toThrow()
    rmSync(join(disk.path, 'ballast'))
    const count = async () => (await pool.query(`select from filler where text = 'kept'`)).rowCount
    expect(await vi.waitFor(count, { timeout: 30_000, interval: 100 })).toBe(1)
    await vi.waitFor(() => pool.query(`insert into filler values ('again')`), { timeout: 10_000, interval: 100 })
    await pool.end()
  })

  test('while it cannot be started again for want of room that is what is said, and logged once', async () => {
    using disk = tinyDisk(100)
    const errors: string[] = []
    const noted = {
      ...log,
      error: (fields: unknown, text?: string) => void errors.push(`${text} ${JSON.stringify(fields)}`),
    }
    await using database = await startEmbeddedPostgres({ dataDir: disk.path, log: noted })
    fillDisk(disk.path, 0)
    process.kill(database.pid, 'SIGKILL')
    await vi.waitFor(() => expect(database.whyDown().code).toBe('database_full'), { timeout: 20_000, interval: 20 })
    expect(database.whyDown().message).toContain(
      `The database has no room to write: no space is left in ${disk.path} (`,
    )
    // Three more attempts.
    await new Promise((resolve) => setTimeout(resolve, 2_000))
    expect(errors.filter((line) => line.startsWith('PostgreSQL could not be started again'))).toHaveLength(1)
    expect(errors.join()).not.toContain('    at ')
    rmSync(join(disk.path, 'ballast'))
    const pool = new pg.Pool(database.connection)
    pool.on('error', () => {})
    await vi.waitFor(() => pool.query('select 1'), { timeout: 30_000, interval: 100 })
    expect(database.whyDown().code).toBe('database_down')
    await pool.end()
  })

  test('a disk of 40 MB is too small and says so', async () => {
    using disk = tinyDisk(40)
    expect((await refusal(disk.path)).code).toBe('disk_full')
  })

  test('a read-only disk with a database on it is named', async () => {
    using disk = tinyDisk(100)
    await makeAndStop(disk.path)
    disk.remount('ro')
    const error = await refusal(disk.path)
    expect(error.code).toBe('data_dir_not_writable')
    expect(error.message).toContain('its file system is read-only')
  })
})
