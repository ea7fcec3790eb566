import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readServerOptions, restoreBackup, writeBackup } from '@openoz/server'
import pg from 'pg'
import pino from 'pino'
import { expect, test } from 'vitest'
import { sealBackup } from '../packages/server/src/backup/backup-file.ts'
import { leftOut } from '../packages/server/src/backup/catalogue.ts'
import { readInstallationKey } from '../packages/server/src/backup/installation-key.ts'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { migrate, readMigrations } from '../packages/server/src/store/migrate.ts'
import { backUp, filledTables, installationOf, restore, restored } from './support/backups.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { message, type TestAgent } from './support/test-agent.ts'
import { createTestDatabase, type TestDatabase } from './support/test-database.ts'

const log = pino({ level: 'silent' })

/** Holds a table, so that whoever comes to it waits. */
async function holdTable(database: TestDatabase, table: string, mode: string): Promise<AsyncDisposable> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  await client.query(`begin; lock table ${table} in ${mode} mode`)
  return { [Symbol.asyncDispose]: () => client.end() }
}

async function isWaiting(database: TestDatabase): Promise<boolean> {
  const waiting = await database.query(
    `select from pg_stat_activity
      where datname = current_database() and application_name = 'openoz backup' and wait_event_type = 'Lock'`,
  )
  return waiting.length > 0
}

test('a backup under load holds every event that was acknowledged before it, and one moment of everything', {
  timeout: 120_000,
}, async () => {
  await using cp = await startControlPlane()
  const second = await cp.addServer()
  const agents = await Promise.all(
    [1, 2, 3, 4, 5].map(async (number) => {
      const workerId = `w${number}`
      const { agent } = await cp.startAgent({ config: { worker_host: workerId } }, { workerId })
      if (number % 2 === 0) agent.moveTo(second.url)
      return agent
    }),
  )
  const stop = new AbortController()
  const acked = new Map<TestAgent, number>()
  // 5 agents, 10 batches a second, 10 events each.
  const writers = agents.map(async (agent) => {
    while (!stop.signal.aborted) {
      const events = Array.from({ length: 10 }, (_, index) => message(`${agent.n + index}`))
      acked.set(agent, (await agent.send(...events)).acked_n)
      await sleep(100)
    }
  })
  await until(() => agents.every((agent) => (acked.get(agent) ?? 0) >= 100))
  // It is in the middle of the tables while much more is written.
  const held = await holdTable(cp.database, 'repository_skills', 'access exclusive')
  const before = new Map(acked)
  const backup = backUp(cp)
  await until(() => isWaiting(cp.database))
  await until(() => agents.every((agent) => (acked.get(agent) ?? 0) >= (before.get(agent) ?? 0) + 150))
  await held[Symbol.asyncDispose]()
  const { file } = await backup
  stop.abort()
  await Promise.all(writers)

  await using target = await restored(cp, file)
  for (const agent of agents) {
    const [log] = await target.query<{ acked: number; stored: number }>(
      `select acked_n::int as acked, count(n)::int as stored, max(n)::int as newest, min(seq)::int as first,
              (max(seq) - count(*))::int as holes, (max(seq) - last_seq)::int as ahead
         from executions join session_events using (run_id) join session_logs using (run_id)
        where executions.id = $1 group by acked_n, last_seq`,
      [agent.executionId],
    )
    const { acked: stored = 0 } = log ?? {}
    expect(stored).toBeGreaterThanOrEqual(before.get(agent) ?? 0)
    expect(stored).toBeLessThan(acked.get(agent) ?? 0)
    expect(log).toEqual({ acked: stored, stored, newest: stored, first: 1, holes: 0, ahead: 0 })
  }
})

/** Something in as many tables as a test can fill through the front doors, and the rest by hand. */
async function useEverything(cp: ControlPlane): Promise<string> {
  const { agent, runId, worker, assignment } = await cp.startAgent({ config: { worker_host: 'w1' } })
  await agent.say('the words of the agent')
  await agent.checkpoint(1, 'the conversation so far')
  const bundle = await agent.putBlob(randomBytes(1_500_000))
  await agent.send({ type: 'workspace_saved', data: { repositories: [], left_out: [bundle] } })
  await cp.client.runs.followUp(runId, { message: 'and more', mode: 'steer' })
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(assignment)
  await until(
    () => cp.client.runs.get(runId),
    (run) => run.state === 'SUCCEEDED' && !run.is_sandbox_running,
  )
  await cp.request('POST', '/api/v1/agent/environments', { json: { name: 'shop' } })
  await cp.request('POST', '/api/v1/agent/runs', {
    json: { prompt: 'waits', config: { worker_host: 'nobody' } },
    headers: { 'idempotency-key': 'once' },
  })
  const id = `'${runId}'`
  await cp.db.query(`
    insert into run_shares (run_id, subject, access) values (${id}, 'team', 'view');
    insert into run_messages (id, sender_run_id, recipient_run_id, subject, body) values (${id}, ${id}, ${id}, 's', 'b');
    insert into model_usage (id, run_id, execution_id, provider, model, input_tokens, output_tokens)
      values (${id}, ${id}, '${assignment.execution_id}', 'p', 'm', 1, 2);
    insert into repository_skills (team_id, host, owner, repo, skill_path, name, description, base_prompt)
      select team_id, 'h', 'o', 'r', 'p', 'n', 'd', 'b' from runs where id = ${id};
    insert into late_workspaces (id, run_id, execution_id, repositories)
      values (${id}, ${id}, '${assignment.execution_id}', '[]');
    insert into worker_drains (team_id, worker_id, requested_by) select team_id, 'w9', 'me' from runs where id = ${id};
    insert into join_tokens (id, team_id, token_hash, expires_at)
      select ${id}, team_id, 'hash', now() + interval '1 hour' from runs where id = ${id};
    insert into attachments (id, run_id, file_name, mime_type) values (${id}, ${id}, 'notes.txt', 'text/plain');
    insert into conversations (id, team_id, forked_from, title)
      select gen_random_uuid(), team_id, conversation_id, E'a fork\\twith "odd" \\\\ text' from runs where id = ${id};
    insert into session_events (run_id, seq, type, at, data)
      select run_id, last_seq + 1, 'artifact', now(), '{"artifact_uid": "a1", "content": "long"}' from session_logs where run_id = ${id};
    update session_logs set last_seq = last_seq + 1 where run_id = ${id}`)
  return runId
}

async function contentOf(database: TestDatabase, table: string): Promise<unknown> {
  const [content] = await database.query(
    `select count(*)::int as rows, md5(string_agg(line, E'\\n' order by line)) as hash
       from (select t::text as line from "${table}" t) lines
      where line not like '%installation.restore%'`,
  )
  return content
}

test('every table is in the backup or is named with the reason why not, and comes back row by row', {
  timeout: 120_000,
}, async () => {
  await using cp = await startControlPlane()
  await useEverything(cp)
  await cp.stop()
  const { file, tables } = await backUp(cp)
  const relations = await cp.db.query<{ name: string }>(
    `select relname::text as name from pg_class join pg_namespace n on n.oid = relnamespace
      where relkind in ('r', 'p', 'm', 'f') and not relispartition
        and nspname not in ('pg_catalog', 'information_schema', 'pg_toast')`,
  )
  const names = relations.map(({ name }) => name).sort()
  expect([...Object.keys(tables), ...Object.keys(leftOut)].sort()).toEqual(names)
  // A table without a row would be compared with nothing: `useEverything` has to fill it.
  const empty = Object.entries(tables).filter(([, rows]) => rows === 0)
  expect(empty.map(([name]) => name)).toEqual([])

  await using target = await restored(cp, file)
  for (const name of Object.keys(tables))
    expect(await contentOf(target, name), name).toEqual(await contentOf(cp.database, name))
  const sequences = 'select sequencename, last_value from pg_sequences order by 1'
  const [before, after] = [await cp.db.query(sequences), await target.query(sequences)]
  // The restore writes no checkpoint, no workspace and no command; what it has numbered itself is behind what there was.
  expect(after).toEqual(before)
})

test('the file is for its owner alone, and holds neither key nor word in the clear', async () => {
  await using cp = await startControlPlane()
  await useEverything(cp)
  const { file, bytes } = await backUp(cp)
  expect(statSync(file)).toMatchObject({ mode: 0o100600, size: bytes })
  const content = readFileSync(file)
  const masterKey = readFileSync(join(cp.folder, 'shared-master.key'), 'utf8').trim()
  const secrets = [cp.adminKey, masterKey, Buffer.from(masterKey, 'base64'), 'the words of the agent', 'do it', 'owner']
  for (const secret of secrets) expect(content.includes(secret)).toBe(false)
  await expect(backUp(cp, file)).rejects.toMatchObject({ code: 'backup_file_exists' })
  expect(readFileSync(file).equals(content)).toBe(true)
  expect(readdirSync(dirname(file)).filter((name) => name.includes('partial'))).toEqual([])
})

test('what is damaged, newer, or of another key is refused before the target is touched', async () => {
  await using cp = await startControlPlane()
  await useEverything(cp)
  const { file, schema } = await backUp(cp)
  const whole = readFileSync(file)
  await using target = await createTestDatabase({ isEmpty: true })
  const tryOut = (content: Buffer, key?: string) => {
    const tried = join(cp.folder, 'tried.ozb')
    writeFileSync(tried, content)
    const options = installationOf(cp, target)
    const wishes = { requeue: false, keepKey: false }
    return restoreBackup({ ...options, ...(key ? { masterKeyFile: key } : {}) }, tried, wishes, { log })
  }
  const places = [100, 0.1, 0.5, 0.9].map((at) => (at < 1 ? Math.floor(whole.length * at) : at))
  for (const at of [...places, whole.length - 1]) {
    await expect(tryOut(whole.subarray(0, at))).rejects.toMatchObject({ code: 'backup_incomplete' })
    const changed = Buffer.from(whole)
    changed.writeUInt8(changed.readUInt8(at) ^ 4, at)
    await expect(tryOut(changed)).rejects.toMatchObject({ code: 'backup_incomplete' })
  }
  const otherKey = join(cp.folder, 'other.key')
  writeFileSync(otherKey, randomBytes(32).toString('base64'), { mode: 0o600 })
  await expect(tryOut(whole, otherKey)).rejects.toMatchObject({ code: 'backup_wrong_key' })

  const key = await readInstallationKey(installationOf(cp))
  const about = { made_at: new Date().toISOString(), version: '9.0.0', schema: schema + 1 }
  const parts: Buffer[] = []
  for await (const part of sealBackup(about, key.masterKey).seal((async function* () {})())) parts.push(part)
  await expect(tryOut(Buffer.concat(parts))).rejects.toMatchObject({
    code: 'backup_too_new',
    message: expect.stringContaining('9.0.0'),
  })
  expect(await target.query(`select from pg_class where relnamespace = 'public'::regnamespace`)).toEqual([])

  // And a backup is not even made where it could not be read again.
  const wrong = { ...installationOf(cp), masterKeyFile: otherKey }
  await expect(writeBackup(wrong, join(cp.folder, 'no.ozb'), { log })).rejects.toMatchObject({
    code: 'master_key_mismatch',
  })
  await expect(backUp(cp, join(cp.folder, 'no', 'no.ozb'))).rejects.toMatchObject({ code: 'backup_not_writable' })
})

test('a target with anything in it is refused, and a migrated one without a row is taken', async () => {
  await using cp = await startControlPlane()
  const { file } = await backUp(cp)
  await expect(restore(cp, { file, target: cp.database })).rejects.toMatchObject({
    code: 'restore_not_empty',
    message: expect.stringContaining('rows'),
  })
  await using migrated = await createTestDatabase()
  await restore(cp, { file, target: migrated })
  expect(await filledTables(migrated)).toContain('api_keys')
})

test('a restore that fails at its end leaves the target as it was', async () => {
  await using cp = await startControlPlane()
  await useEverything(cp)
  const { file } = await backUp(cp)
  await using target = await createTestDatabase()
  const before = await filledTables(target)
  await target.query('alter table turns add constraint impossible check (false)')
  await expect(restore(cp, { file, target })).rejects.toMatchObject({ code: 'restore_failed' })
  expect(await filledTables(target)).toEqual(before)
  await target.query('alter table turns drop constraint impossible')
  await restore(cp, { file, target })
  expect(await filledTables(target)).toContain('turns')
})

test('a data folder with another master key keeps it, and takes no data of other keys', async () => {
  await using cp = await startControlPlane()
  const { file } = await backUp(cp)
  await using target = await createTestDatabase({ isEmpty: true })
  const options = installationOf(cp, target)
  mkdirSync(options.dataDir)
  const keyFile = join(options.dataDir, 'master.key')
  const other = randomBytes(32).toString('base64')
  writeFileSync(keyFile, other, { mode: 0o600 })
  const keeping = () => restoreBackup(options, file, { requeue: false, keepKey: true }, { log })
  await expect(keeping()).rejects.toMatchObject({ code: 'master_key_mismatch' })
  expect(readFileSync(keyFile, 'utf8')).toBe(other)
  expect(await filledTables(target)).toEqual([])
  rmSync(keyFile)
  await keeping()
  expect(statSync(keyFile).mode & 0o777).toBe(0o600)
  expect(readFileSync(keyFile, 'utf8').trim()).toBe(readFileSync(options.masterKeyFile ?? '', 'utf8').trim())
})

test('a backup of an older schema is migrated after its rows are in', async () => {
  await using cp = await startControlPlane()
  const migrations = await readMigrations()
  const older = migrations.slice(0, -1)
  await using old = await createTestDatabase({ isEmpty: true })
  const db = openDatabase({ connectionString: old.url }, () => {})
  const one = '00000000-0000-7000-8000-000000000001'
  try {
    await migrate(db, older)
    const { check } = await readInstallationKey(installationOf(cp))
    await db.query('insert into installation (id, master_key_check) values ($1, $2)', [one, check])
    await db.query(`
      insert into teams (id, name, slug) values ('${one}', 't', 't');
      insert into conversations (id, team_id) values ('${one}', '${one}');
      insert into runs (id, team_id, scope, conversation_id, title, prompt, source, execution_location, config, state)
        values ('${one}', '${one}', 'team', '${one}', 't', 'p', 'API', 'REMOTE', '{}', 'INPROGRESS');
      insert into session_logs (run_id) values ('${one}');
      insert into executions (id, run_id, number, state, worker_id, token_hash, hello_at)
        values ('${one}', '${one}', 1, 'running', 'w', '\\x01', db_now());
      insert into turns (id, run_id, number, message, author, execution_id) values ('${one}', '${one}', 1, 'p', 'a', '${one}')`)
  } finally {
    await db.close()
  }
  const file = join(cp.folder, 'older.ozb')
  await writeBackup(installationOf(cp, old), file, { log })
  await using target = await createTestDatabase({ isEmpty: true })
  const { schema, runs } = await restore(cp, { file, target })
  expect(schema).toEqual({ from: older.length, to: migrations.length })
  expect(runs).toMatchObject({ ended: 1, queued: 0 })
  expect(await target.query('select max(version) as version from schema_migrations')).toEqual([
    { version: migrations.length },
  ])
  expect(await target.query('select state, failure_reason from runs')).toEqual([
    { state: 'ERROR', failure_reason: 'restored' },
  ])
})

test('a migration waits for a backup, and keeps nobody else from working', async () => {
  await using cp = await startControlPlane()
  const held = await holdTable(cp.database, 'repository_skills', 'access exclusive')
  const backup = backUp(cp)
  await until(() => isWaiting(cp.database))
  const db = openDatabase({ connectionString: cp.database.url }, () => {})
  try {
    let isMigrated = false
    const migrations = await readMigrations()
    const sql = 'alter table runs add column later integer'
    const next = { version: migrations.length + 1, name: 'later.sql', sql, hash: 'later' }
    const migrated = migrate(db, [...migrations, next]).then(() => {
      isMigrated = true
    })
    await until(() =>
      cp.db.query(`select from pg_locks where locktype = 'advisory' and not granted`).then(({ length }) => length > 0),
    )
    await cp.createRun()
    expect(isMigrated).toBe(false)
    await held[Symbol.asyncDispose]()
    await backup
    await migrated
  } finally {
    await db.close()
  }
})

test('there has to be something to back up', async () => {
  await using cp = await startControlPlane()
  const file = join(cp.folder, 'no.ozb')
  await using empty = await createTestDatabase({ isEmpty: true })
  const missing = { code: 'database_missing' }
  await expect(writeBackup(installationOf(cp, empty), file, { log })).rejects.toMatchObject(missing)
  await using migrated = await createTestDatabase()
  await expect(writeBackup(installationOf(cp, migrated), file, { log })).rejects.toMatchObject(missing)
  const noFolder = readServerOptions({ dataDir: join(cp.folder, 'nothing') }, {})
  await expect(writeBackup(noFolder, file, { log })).rejects.toMatchObject(missing)
  expect(readdirSync(cp.folder)).not.toContain('nothing')
})
