import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createDialer } from '@openoz/machine'
import type { ServerMessage, TaskAssignment, WorkerMessage } from '@openoz/protocol'
import { workerChannelPath, workerProtocolHeader } from '@openoz/protocol/schemas'
import pg from 'pg'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import WebSocket from 'ws'
import { checkControlPlane } from '../packages/cli/src/doctor/control-plane.ts'
import { SocketDial } from '../packages/worker/src/socket-dial.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { Inbox, until } from './support/poll.ts'
import { startScriptedModel } from './support/scripted-model.ts'
import { readServerSentEvents, type ServerSentEvent } from './support/server-sent-events.ts'
import { startUpgradeBlocker } from './support/upgrade-blocker.ts'
import { startWorkerProgram } from './support/worker-program.ts'

/** Workers behind a network that passes HTTP and ends WebSockets. */

function makeFolder(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'oz-http-channel-'))
  chmodSync(path, 0o755)
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true, maxRetries: 5 }) }
}

const ours = { [workerProtocolHeader]: '1' }
const hello = (running: { task_id: string; execution_id: string }[] = []): WorkerMessage => ({
  type: 'worker_hello',
  data: {
    protocol: 1,
    version: '0.1.0',
    backend: 'direct',
    platform: 'linux/amd64',
    host: 'test',
    max_concurrent_tasks: 1,
    running,
  },
})
const claimOf = ({ task_id, execution_id }: TaskAssignment): WorkerMessage => ({
  type: 'task_claimed',
  data: { task_id, execution_id, worker_id: 'h1' },
})
const endOf = ({ task_id, execution_id }: TaskAssignment): WorkerMessage => ({
  type: 'task_completed',
  data: { task_id, execution_id, message: '' },
})

/** The channel as its wire is: events as they come, frames as the test numbers them. */
async function openChannel(cp: ControlPlane, { key = cp.adminKey, serverUrl = cp.url } = {}) {
  const stop = new AbortController()
  const events = new Inbox<ServerSentEvent>()
  const url = `${serverUrl}${workerChannelPath}?worker_id=h1`
  const reading = (async () => {
    for await (const event of readServerSentEvents(url, { key, headers: ours, signal: stop.signal })) events.push(event)
  })().catch(() => {})
  const { event, data } = await events.next()
  expect(event).toBe('open')
  const { channel_id: id } = JSON.parse(data) as { channel_id: string }
  const messages = () =>
    events.items.flatMap(({ event, data }) => (event === 'message' ? [JSON.parse(data) as ServerMessage] : []))
  return {
    id,
    events,
    messages,
    /** Up to which number frames were handled. */
    handled: () =>
      Math.max(
        0,
        ...events.items.flatMap(({ event, data }) => (event === 'handled' ? [Number(JSON.parse(data).through)] : [])),
      ),
    assignments: () => messages().flatMap((message) => (message.type === 'task_assignment' ? [message.data] : [])),
    async post(first: number, frames: WorkerMessage[], to: { key?: string; serverUrl?: string } = {}) {
      const response = await fetch(`${to.serverUrl ?? serverUrl}${workerChannelPath}/${id}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${to.key ?? key}`, 'content-type': 'application/json' },
        body: JSON.stringify({ first, frames }),
      })
      return { status: response.status, body: (await response.json()) as { received?: number; code?: string } }
    },
    async [Symbol.asyncDispose]() {
      stop.abort()
      await reading
    },
  }
}

test.each([
  [403, 'it answered 403'],
  [501, 'it answered 501'],
  ['cut', 'the connection was closed before the answer was complete'],
] as const)(
  'a run goes from end to end where a WebSocket is ended by %s',
  { timeout: 60_000 },
  async (upgrades, words) => {
    using folder = makeFolder()
    await using model = await startScriptedModel({
      steps: [{ toolCalls: [{ name: 'run_command', arguments: { command: 'echo here' } }] }, { text: 'It is here.' }],
    })
    await using cp = await startControlPlane({
      env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` },
    })
    await using blocker = await startUpgradeBlocker(cp.url, upgrades)
    const env = { OZ_SERVER_URL: blocker.url, OZ_API_KEY: cp.adminKey }
    await using worker = await startWorkerProgram(folder.path, { workerId: 'behind', env })
    const told = worker.log().match(/The WebSocket is blocked on the way; the plain HTTP channel is used/g)
    expect(told).toHaveLength(1)
    expect(worker.log()).toContain(words)
    const { workers } = await until(
      () => cp.client.workers.list(),
      ({ workers }) => workers.length === 1,
    )
    expect(workers).toMatchObject([{ worker_id: 'behind', channel: 'http', backend: 'direct' }])

    const runId = await cp.createRun({ prompt: 'Where?', config: { worker_host: 'behind', idle_timeout_minutes: 0 } })
    const run = await cp.waitFor(runId, 'SUCCEEDED', 40_000)
    expect(run.status_message?.message).toContain('It is here.')
    const { executions } = await cp.client.runs.executions(runId)
    expect(executions).toHaveLength(1)
    await until(
      () => cp.client.workers.list(),
      ({ workers }) => workers[0]?.active === 0,
    )
  },
)

test('connections that are cut at each word of the worker lose no claim and no outcome, and none counts twice', {
  timeout: 150_000,
}, async () => {
  using folder = makeFolder()
  const maxRounds = 5
  await using model = await startScriptedModel({ steps: Array(maxRounds).fill({ text: 'Done.' }) })
  await using cp = await startControlPlane({
    env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` },
  })
  await using blocker = await startUpgradeBlocker(cp.url, 501)
  // As behind a load balancer: what the worker says comes to another server than the one that talks to it.
  blocker.postTarget = (await cp.addServer()).url
  const env = { OZ_SERVER_URL: blocker.url, OZ_API_KEY: cp.adminKey }
  await using worker = await startWorkerProgram(folder.path, { workerId: 'cut', env })
  let cutOutcomes = 0
  for (let round = 0; round < maxRounds && cutOutcomes < 2; round++) {
    // The server has the claim, or the outcome, and the worker does not know it.
    for (const word of ['task_claimed', 'task_completed']) blocker.losesAnswersTo.add(word)
    const runId = await cp.createRun({ prompt: 'Do it.', config: { worker_host: 'cut', idle_timeout_minutes: 0 } })
    await cp.waitFor(runId, 'SUCCEEDED', 40_000)
    const { executions } = await cp.client.runs.executions(runId)
    // An offer that the cut kept from the worker is withdrawn and made again; what was claimed is done, and done once.
    const taken = executions.filter(({ outcome }) => outcome !== 'rejected')
    expect(taken).toMatchObject([{ outcome: 'SUCCEEDED' }])
    expect(executions.map(({ state }) => state)).not.toContain('lost')
    const states = await cp.statesOf(runId)
    for (const once of ['CLAIMED', 'INPROGRESS', 'SUCCEEDED'])
      expect(states.filter((state) => state === once)).toEqual([once])
    // After short connections the worker waits for seconds.
    await until(() => !blocker.losesAnswersTo.has('task_claimed'), Boolean, { timeoutMs: 30_000 })
    await until(
      () => cp.client.workers.list(),
      ({ workers }) => workers.length === 1 && workers[0]?.active === 0,
      { timeoutMs: 30_000 },
    )
    // A worker that hears first that the run is over says only that the task is gone.
    if (!blocker.losesAnswersTo.has('task_completed')) cutOutcomes++
  }
  expect(cutOutcomes).toBeGreaterThan(0)
  // Where it worked lately, the way that works is tried first.
  expect(blocker.upgradesSeen).toBe(1)
  expect(worker.log()).toContain('Not connected to the server')
})

test('what comes at another server of the same database is handled by the one that holds the stream, once', async () => {
  for (const useNotify of [true, false]) {
    await using cp = await startControlPlane({ useNotify })
    const other = await cp.addServer()
    await using channel = await openChannel(cp)
    const elsewhere = { serverUrl: other.url }
    const runId = await cp.createRun({ config: { worker_host: 'h1' } })
    expect(await channel.post(1, [hello()], elsewhere)).toMatchObject({ status: 200, body: { received: 1 } })
    const [assignment] = await until(channel.assignments, (found) => found.length > 0)
    if (!assignment) throw new Error('no assignment')
    expect(assignment.task_id).toBe(runId)
    const claimed = await channel.post(2, [claimOf(assignment)], elsewhere)
    expect(claimed.body.received).toBe(2)
    await cp.waitFor(runId, 'CLAIMED')
    // The same again, as after a lost answer: by either server, and with something behind it.
    expect((await channel.post(1, [hello(), claimOf(assignment)])).body.received).toBe(2)
    expect((await channel.post(2, [claimOf(assignment), endOf(assignment)], elsewhere)).body.received).toBe(3)
    await until(channel.handled, (through) => through === 3)
    expect(channel.messages().map(({ type }) => type)).toEqual(['task_assignment'])
    expect(channel.events.items.map(({ event }) => event)).not.toContain('close')
    await until(
      () => cp.db.query<{ left: number }>('select count(*)::int as left from worker_frames'),
      ([row]) => row?.left === 0,
    )
  }
})

test('a cancel reaches a worker behind the channel within three seconds', async () => {
  await using cp = await startControlPlane()
  await using channel = await openChannel(cp)
  const runId = await cp.createRun({ config: { worker_host: 'h1' } })
  await channel.post(1, [hello()])
  const [assignment] = await until(channel.assignments, (found) => found.length > 0)
  if (!assignment) throw new Error('no assignment')
  await channel.post(2, [claimOf(assignment)])
  await cp.waitFor(runId, 'CLAIMED')
  await cp.client.runs.cancel(runId)
  await until(channel.messages, (all) => all.some(({ type }) => type === 'task_cancellation'), { timeoutMs: 3_000 })
})

test('what is not done with is not told to be handled, and pings go on meanwhile', { timeout: 30_000 }, async () => {
  await using cp = await startControlPlane()
  await using channel = await openChannel(cp)
  const lock = new pg.Client({ connectionString: cp.database.url })
  await lock.connect()
  try {
    const runId = await cp.createRun({ config: { worker_host: 'h1' } })
    await channel.post(1, [hello()])
    const [assignment] = await until(channel.assignments, (found) => found.length > 0)
    if (!assignment) throw new Error('no assignment')
    await until(channel.handled, (through) => through === 1)
    await lock.query('begin')
    await lock.query('select from runs where id = $1 for update', [runId])
    expect((await channel.post(2, [claimOf(assignment)])).body.received).toBe(2)
    const pings = () => channel.events.items.filter(({ event }) => event === 'ping').length
    const before = pings()
    await until(pings, (count) => count > before + 1, { timeoutMs: 15_000 })
    expect(channel.handled()).toBe(1)
    await lock.query('commit')
    await until(channel.handled, (through) => through === 2)
    await cp.waitFor(runId, 'CLAIMED')
  } finally {
    await lock.end()
  }
})

test('a channel is its key’s alone, has no gaps, and is gone when its stream is', async () => {
  await using cp = await startControlPlane()
  const { raw_api_key: foreign } = await cp.client.apiKeys.create({ name: 'other', scope: 'team' })
  const channel = await openChannel(cp)
  try {
    expect(await channel.post(1, [hello()], { key: foreign })).toMatchObject({
      status: 410,
      body: { code: 'worker_channel_gone' },
    })
    expect(await channel.post(2, [hello()])).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect((await channel.post(1, [hello()])).status).toBe(200)
  } finally {
    await channel[Symbol.asyncDispose]()
  }
  await until(
    () => channel.post(2, [{ type: 'heartbeat', data: {} }]),
    ({ status, body }) => status === 410 && body.code === 'worker_channel_gone',
  )
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers.length === 0,
  )
  const { body } = await cp.request('GET', `${workerChannelPath}?worker_id=h1`)
  expect(body).toMatchObject({ code: 'invalid_request', detail: expect.stringContaining(workerProtocolHeader) })
})

test('a revoked key and a stopping server say so at the end of the stream', { timeout: 30_000 }, async () => {
  await using cp = await startControlPlane()
  const { raw_api_key: key, api_key } = await cp.client.apiKeys.create({ name: 'w', scope: 'worker', worker_id: 'h1' })
  await using revoked = await openChannel(cp, { key })
  await revoked.post(1, [hello()])
  await using stopped = await openChannel(cp)
  await stopped.post(1, [hello()])
  await cp.client.apiKeys.expire(api_key.uid)
  const end = async ({ events }: typeof stopped) => {
    const [last] = await until(
      () => events.items.filter(({ event }) => event === 'close'),
      (found) => found.length > 0,
    )
    return JSON.parse(last?.data ?? '{}')
  }
  expect(await end(revoked)).toMatchObject({ code: 4401 })
  await cp.stop()
  expect(await end(stopped)).toMatchObject({ code: 4503 })
})

test('a pong to one of ours waits for the work before its ping, while the server’s own pings go on; to the reference it is a sign of life', {
  timeout: 30_000,
}, async () => {
  await using cp = await startControlPlane()
  const lock = new pg.Client({ connectionString: cp.database.url })
  await lock.connect()
  const sockets: WebSocket[] = []
  const connect = async (workerId: string, headers: Record<string, string>) => {
    const socket = new WebSocket(`${cp.url.replace('http', 'ws')}/api/v1/selfhosted/worker/ws?worker_id=${workerId}`, {
      headers: { authorization: `Bearer ${cp.adminKey}`, ...headers },
    })
    sockets.push(socket)
    const seen = { pongs: [] as string[], pings: 0, assignments: [] as TaskAssignment[] }
    socket.on('pong', (payload) => seen.pongs.push(payload.toString()))
    socket.on('ping', () => seen.pings++)
    socket.on('message', (text) => {
      const message = JSON.parse(text.toString()) as ServerMessage
      if (message.type === 'task_assignment') seen.assignments.push(message.data)
    })
    await new Promise((resolve) => socket.once('open', resolve))
    return { socket, seen }
  }
  try {
    const own = await connect('own', ours)
    own.socket.send(JSON.stringify(hello()))
    const reference = await connect('reference', {})
    for (const [host, { socket, seen }] of Object.entries({ own, reference })) {
      const runId = await cp.createRun({ config: { worker_host: host } })
      const [assignment] = await until(
        () => seen.assignments,
        (found) => found.length > 0,
      )
      if (!assignment) throw new Error('no assignment')
      await lock.query('begin')
      await lock.query('select from runs where id = $1 for update', [runId])
      socket.send(JSON.stringify(claimOf(assignment)))
      socket.ping('42')
      const pings = seen.pings
      if (host === 'own') {
        await until(() => seen.pings > pings, Boolean, { timeoutMs: 12_000 })
        expect(seen.pongs).toEqual([])
      } else await until(() => seen.pongs.includes('42'))
      expect((await cp.client.runs.get(runId)).state).not.toBe('CLAIMED')
      await lock.query('commit')
      await until(() => seen.pongs.includes('42'))
      await cp.waitFor(runId, 'CLAIMED')
    }
  } finally {
    for (const socket of sockets) socket.terminate()
    await lock.end()
  }
})

test('a worker that loses its WebSocket to a proxy, and then its server, comes back over plain HTTP', {
  timeout: 60_000,
}, async () => {
  using folder = makeFolder()
  await using cp = await startControlPlane()
  await using blocker = await startUpgradeBlocker(cp.url, 'pass')
  const env = { OZ_SERVER_URL: blocker.url, OZ_API_KEY: cp.adminKey }
  const channels = async () => (await cp.client.workers.list()).workers.map(({ channel }) => channel).join()
  await using _worker = await startWorkerProgram(folder.path, { workerId: 'w', env })
  await until(channels, (found) => found === 'websocket')
  blocker.upgrades = 403
  blocker.cut()
  await until(channels, (found) => found === 'http', { timeoutMs: 20_000 })
  await cp.restart()
  await until(channels, (found) => found === 'http', { timeoutMs: 20_000 })
})

test('the WebSocket is tried first again later, and where neither passes the problem names both', async () => {
  await using cp = await startControlPlane()
  await using blocker = await startUpgradeBlocker(cp.url, 403)
  const dialer = createDialer({ serverUrl: cp.url, env: {} })
  const log = pino({ level: 'silent' })
  const { signal } = new AbortController()
  const webSocketUrl = `${blocker.url.replace('http', 'ws')}/api/v1/selfhosted/worker/ws`
  const dialOf = (timing: { httpFirstMs?: number; openTimeoutMs?: number }) =>
    new SocketDial({ dialer, workerId: 'w', apiKey: cp.adminKey, webSocketUrl, log, timing })
  const kindOf = async (dial: SocketDial) => {
    const socket = await dial.dial(signal)
    const ended = new Promise((resolve) => socket.on('close', resolve))
    socket.terminate()
    await ended
    return socket instanceof WebSocket ? 'websocket' : 'http'
  }
  try {
    const [soon, late] = [dialOf({}), dialOf({ httpFirstMs: 0 })]
    expect([await kindOf(soon), await kindOf(late)]).toEqual(['http', 'http'])
    const env = { HOME: '/nonexistent', XDG_CONFIG_HOME: '/nonexistent', OZ_API_KEY: cp.adminKey }
    const findings = await checkControlPlane({ serverUrl: blocker.url, outputFormat: 'pretty' }, env)
    expect(findings.find(({ check }) => check === 'websocket')).toMatchObject({
      level: 'warn',
      text: expect.stringMatching(/it answered 403.*plain HTTP channel here, which passes/),
    })
    expect((await cp.client.workers.list()).workers).toEqual([])
    blocker.upgrades = 'pass'
    expect([await kindOf(soon), await kindOf(late)]).toEqual(['http', 'websocket'])
    blocker.upgrades = 501
    blocker.collectsStreams = true
    await expect(dialOf({ openTimeoutMs: 300 }).dial(signal)).rejects.toMatchObject({
      code: 'websocket_blocked',
      message: expect.stringMatching(/it answered 501.*did not begin within 0.3 s/),
    })
  } finally {
    await dialer.close()
  }
})
