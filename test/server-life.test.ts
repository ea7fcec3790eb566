import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import type { ServerSentEvent } from './support/server-sent-events.ts'

test('stopping closes worker sockets with a reason, ends streams and answers, and hangs on nothing', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker } = await cp.startAgent()
  const idle = await cp.connectWorker({ workerId: 'idle' })
  const seen: ServerSentEvent[] = []
  const viewers = Array.from({ length: 5 }, async () => {
    for await (const event of cp.view(runId)) seen.push(event)
  })
  const commands = (async () => {
    for await (const _ of agent.commandEvents()) throw new Error('no command was given')
  })()
  await until(() => seen.length === 25)
  // Requests that are on their way are answered, not broken off.
  const answers = Array.from({ length: 20 }, () => cp.request('GET', `/api/v1/agent/runs/${runId}`).catch(() => null))
  const from = performance.now()
  const stopped = cp.stop()
  for (const answer of await Promise.all(answers)) if (answer) expect([200, 503]).toContain(answer.status)
  await stopped
  expect(performance.now() - from).toBeLessThan(2_000)
  expect(await worker.closed).toEqual({ code: 4503, reason: 'this server is stopping' })
  expect((await idle.closed).code).toBe(4503)
  await Promise.all([...viewers, commands])
  expect(seen.some(({ event }) => event === 'end')).toBe(false)
})

test('an offer that was open when the server stopped is back in the queue, without waiting for anybody', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  await worker.nextAssignment()
  await cp.stop()
  const [row] = await cp.db.query<{ state: string; connections: number }>(
    'select state, (select count(*)::int from worker_connections) as connections from runs where id = $1',
    [runId],
  )
  expect(row).toEqual({ state: 'QUEUED', connections: 0 })
})

test('stop may be called twice, and stopped resolves', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  const server = await cp.addServer()
  await Promise.all([server.stop(), server.stop(), server.stopped])
})

test('a restart keeps everything, and workers and agents go on', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, assignment } = await cp.startAgent()
  await agent.say('before')
  await cp.restart()
  expect(await agent.say('after')).toEqual({ acked_n: 2 })
  const { task_id, execution_id } = assignment
  const worker = await cp.connectWorker({ running: [{ task_id, execution_id }] })
  await agent.end('SUCCEEDED')
  worker.complete(assignment)
  await until(
    () => cp.client.runs.get(runId),
    (run) => !run.is_sandbox_running,
  )
  expect((await cp.client.runs.get(runId)).state).toBe('SUCCEEDED')
})

test('healthz answers before the database is there, and everything else says to come again', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  // A database that takes a connection and says nothing.
  const silent = createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const address = silent.address() as { port: number }
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  probe.close()
  const sockets: import('node:net').Socket[] = []
  silent.on('connection', (socket) => sockets.push(socket))
  const starting = cp.addServer({ port, env: {}, databaseUrl: `postgresql://x@127.0.0.1:${address.port}/x` })
  const failed = expect(starting).rejects.toMatchObject({ code: 'database_unreachable' })
  const url = `http://127.0.0.1:${port}`
  const ready = await until(() => fetch(`${url}/healthz`).catch(() => null))
  expect(await ready?.json()).toEqual({ status: 'alive' })
  expect((await fetch(`${url}/readyz`)).status).toBe(503)
  const answer = await fetch(`${url}/api/v1/whoami`)
  expect([answer.status, answer.headers.get('x-should-retry'), answer.headers.get('retry-after')]).toEqual([
    503,
    'true',
    '1',
  ])
  expect(await answer.json()).toMatchObject({ code: 'server_starting', retryable: true })
  for (const socket of sockets) socket.destroy()
  silent.close()
  await failed
})

test('readyz is good when the database is', async () => {
  await using cp = await startControlPlane()
  expect(await cp.request('GET', '/readyz', { key: null })).toMatchObject({ status: 200, body: { status: 'ready' } })
  expect(await cp.request('GET', '/healthz', { key: null })).toMatchObject({ status: 200 })
})

test('a port that is taken is named', async () => {
  await using cp = await startControlPlane()
  const { port } = new URL(cp.url)
  await expect(cp.addServer({ port: Number(port) })).rejects.toMatchObject({
    code: 'port_in_use',
    message: expect.stringContaining(`127.0.0.1:${port}`),
  })
})

test('a server that finds another master key than its data was written with refuses to start', async () => {
  await using cp = await startControlPlane()
  const file = join(cp.folder, 'other.key')
  writeFileSync(file, randomBytes(32).toString('base64'), { mode: 0o600 })
  await expect(cp.addServer({ env: { OZ_MASTER_KEY_FILE: file } })).rejects.toMatchObject({
    code: 'master_key_mismatch',
    message: expect.stringContaining(file),
  })
  writeFileSync(file, 'short', { mode: 0o600 })
  await expect(cp.addServer({ env: { OZ_MASTER_KEY_FILE: file } })).rejects.toMatchObject({
    code: 'master_key_invalid',
  })
  writeFileSync(join(cp.folder, 'open.key'), 'x', { mode: 0o644 })
  await expect(cp.addServer({ env: { OZ_MASTER_KEY_FILE: join(cp.folder, 'open.key') } })).rejects.toMatchObject({
    code: 'private_file_exposed',
  })
})

test('the bootstrap key is taken again and again, and another one is added beside it', async () => {
  await using cp = await startControlPlane()
  await cp.restart()
  expect((await cp.client.whoami()).key_scope).toBe('user')
  const second = 'wk-another-bootstrap-key'
  const server = await cp.addServer({ env: { OZ_BOOTSTRAP_API_KEY: second } })
  expect(await cp.clientFor(second, server.url).whoami()).toEqual(await cp.client.whoami())
  expect((await cp.client.apiKeys.list()).api_keys.map(({ name }) => name)).toEqual(['admin', 'admin'])
})

test('without a given key the first start writes one, once, for its owner only', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  const server = await cp.addServer({ env: { OZ_BOOTSTRAP_API_KEY: '', OZ_MASTER_KEY_FILE: '' } })
  const key = readFileSync(server.adminApiKeyFile, 'utf8').trim()
  expect(statSync(server.adminApiKeyFile).mode & 0o777).toBe(0o600)
  expect(statSync(join(server.dataDir, 'master.key')).mode & 0o777).toBe(0o600)
  expect((await cp.clientFor(key, server.url).whoami()).team_names).toEqual(['default'])
})

test('servers that start at once on an empty database make one owner and one team', async () => {
  await using cp = await startControlPlane({ isStopped: true, isEmpty: true })
  const servers = await Promise.all(Array.from({ length: 4 }, () => cp.addServer()))
  for (const server of servers)
    expect((await cp.clientFor(cp.adminKey, server.url).whoami()).team_names).toEqual(['default'])
  const [row] = await cp.db.query(
    `select (select count(*)::int from users) as users, (select count(*)::int from teams) as teams,
            (select count(*)::int from api_keys) as keys, (select count(*)::int from installation) as installations,
            (select count(*)::int from schema_migrations) as migrations`,
  )
  expect(row).toMatchObject({ users: 1, teams: 1, keys: 1, installations: 1 })
})

test('a database that is newer than the program, or not ours, is refused with both sides named', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  await cp.db.query(`insert into schema_migrations (version, name, hash) values (9000, '9000_later.sql', 'x')`)
  await expect(cp.addServer()).rejects.toMatchObject({
    code: 'database_too_new',
    message: expect.stringMatching(/9000.*\b\d\b/),
  })
  await cp.db.query('delete from schema_migrations where version = 9000')
  await cp.db.query(`update schema_migrations set hash = 'changed' where version = 1`)
  await expect(cp.addServer()).rejects.toMatchObject({
    code: 'migration_changed',
    message: expect.stringContaining('1'),
  })
})

test('a start that fails leaves nothing open', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  await expect(cp.addServer({ databaseUrl: 'postgresql://nobody@127.0.0.1:1/none' })).rejects.toMatchObject({
    code: 'database_unreachable',
  })
  await sleep(10)
})
