import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, globSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { postgresUser } from '../../packages/server/src/postgres/data-dir.ts'
import { scratchFolder } from '../../packages/server/src/postgres/testing/scratch-folder.ts'
import { type DatabaseServer, provideDatabaseServer } from './database-server.ts'

/**
 * A private cluster of the PostgreSQL that Debian packages: the oldest that we take (15), and what `DATABASE_URL` means for most people. Where
 * it is not installed its tests are skipped with a line that says so; not in CI, which installs it.
 */
export async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const programs = globSync('/usr/lib/postgresql/*/bin').sort()[0]
  if (programs === undefined) {
    if (process.env.CI === 'true')
      throw new Error('CI tests on Debian’s PostgreSQL too: install the package postgresql')
    console.warn('\n  SKIPPED: the tests on Debian’s PostgreSQL, which is not installed (apt-get install postgresql)\n')
    project.provide('databaseServer', null)
    return undefined
  }
  const folder = scratchFolder()
  const data = join(folder.path, 'data')
  const user = postgresUser()
  const asUser = process.getuid?.() === 0 ? user : {}
  mkdirSync(data, { mode: 0o700 })
  if (process.getuid?.() === 0) chownSync(data, user.uid, user.gid)
  const server = { host: data, port: 5432, user: 'openoz', password: '' }
  execFileSync(
    join(programs, 'initdb'),
    ['--pgdata', data, '--username', server.user, '--auth', 'trust', '--encoding', 'UTF8', '--locale', 'C.UTF-8', '-N'],
    { ...asUser, cwd: '/', stdio: 'ignore' },
  )
  const child = spawn(
    join(programs, 'postgres'),
    ['-D', data, '-k', data, '-c', 'listen_addresses=', '-c', 'max_connections=100', '-c', 'log_min_messages=fatal'],
    { ...asUser, cwd: '/', stdio: 'ignore' },
  )
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit')
      child.kill('SIGINT')
      await exited
    }
    folder[Symbol.dispose]()
  }
  try {
    await untilReady(server, child)
    await provideDatabaseServer(project, server)
  } catch (error) {
    await stop()
    throw error
  }
  return stop
}

async function untilReady(server: DatabaseServer, child: ChildProcess): Promise<void> {
  for (;;) {
    const client = new pg.Client({ ...server, database: 'postgres' })
    client.on('error', () => {})
    try {
      await client.connect()
      await client.end()
      return
    } catch (error) {
      if (child.exitCode !== null) throw new Error(`PostgreSQL ended with ${child.exitCode}`, { cause: error })
      await sleep(50)
    }
  }
}
