import type { RunEvent } from '@openoz/protocol'
import pg from 'pg'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { createHints } from '../packages/server/src/hints.ts'
import { RunEventFeed } from '../packages/server/src/sockets/run-event-feed.ts'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addMember, addTeam } from './support/people.ts'
import { Inbox, until } from './support/poll.ts'
import { readServerSentEvents } from './support/server-sent-events.ts'

const unknownRun = '00000000-0000-4000-8000-000000000000'

async function poll(cp: ControlPlane, query: string, key = cp.adminKey): Promise<RunEvent[]> {
  const { status, body } = await cp.request<RunEvent[]>('GET', `/api/v1/agent/events?${query}`, { key })
  expect([status, body]).toEqual([200, expect.any(Array)])
  return body
}

const ids = (runIds: string[]) => runIds.map((runId) => `run_ids=${runId}`).join('&')
const told = (events: RunEvent[]) => events.map(({ event_type }) => event_type)

/** Follows the stream until the reader is disposed of. */
function follow(
  cp: ControlPlane,
  query: string,
  init: { key?: string; lastEventId?: number; serverUrl?: string } = {},
) {
  const { key = cp.adminKey, serverUrl = cp.url, ...rest } = init
  const stop = new AbortController()
  const inbox = new Inbox<RunEvent & { id: number }>()
  const ended = (async () => {
    const url = `${serverUrl}/api/v1/agent/events/stream?${query}`
    for await (const { id, data } of readServerSentEvents(url, { key, ...rest, signal: stop.signal }))
      inbox.push({ ...(JSON.parse(data) as RunEvent), id: Number(id) })
  })().catch((error: Error) => {
    if (!stop.signal.aborted) throw error
  })
  return {
    next: () => inbox.next(),
    items: inbox.items,
    ended,
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await ended
    },
  }
}

/** A transaction of somebody else, left open. */
async function openTransaction(cp: ControlPlane) {
  const client = new pg.Client({ connectionString: cp.database.url })
  await client.connect()
  await client.query('begin')
  return client
}

async function reportLate(client: pg.Client, runId: string): Promise<void> {
  await client.query(`insert into run_events (run_id, event_type) values ($1, 'run_failed')`, [runId])
}

test('how runs move is told in one order over all of them', async () => {
  await using cp = await startControlPlane()
  const first = await cp.startAgent()
  const second = await cp.startAgent()
  await first.agent.end('BLOCKED', 'Which one?')
  await second.agent.end('FAILED')
  await cp.client.runs.followUp(first.runId, { message: 'That one.' })
  await first.agent.nextTurn()
  await first.agent.end('SUCCEEDED')
  const cancelled = await cp.createRun({ config: { worker_host: 'nobody' } })
  await cp.client.runs.cancel(cancelled)

  const all = await poll(cp, ids([first.runId, second.runId, cancelled, unknownRun]))
  expect(all.map(({ run_id, event_type }) => [run_id, event_type])).toEqual([
    [first.runId, 'run_in_progress'],
    [second.runId, 'run_in_progress'],
    [first.runId, 'run_blocked'],
    [second.runId, 'run_failed'],
    [first.runId, 'run_in_progress'],
    [first.runId, 'run_succeeded'],
    [cancelled, 'run_cancelled'],
  ])
  expect(all[0]).toEqual({
    event_type: 'run_in_progress',
    run_id: first.runId,
    ref_id: null,
    execution_id: first.agent.executionId,
    occurred_at: expect.stringMatching(/Z$/),
    sequence: all[0]?.sequence,
  })
  const sequences = all.map(({ sequence }) => sequence)
  expect(sequences).toEqual([...new Set(sequences)].sort((a, b) => a - b))
  const since = all[2]?.sequence
  expect(told(await poll(cp, `run_ids[]=${first.runId}&since=${since}&limit=1`))).toEqual(['run_in_progress'])
  expect(told(await poll(cp, `run_ids=${second.runId}&since=${since}`))).toEqual(['run_failed'])
  expect(await poll(cp, `run_ids=${second.runId}&since=${all.at(-1)?.sequence}`)).toEqual([])
})

test('an error and its retry are told as what they are', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end('ERROR')
  expect(told(await poll(cp, `run_ids=${runId}`))).toEqual(['run_in_progress', 'run_errored'])
})

test('what a query must have and may not have', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  const bad = [
    'agent/events',
    'agent/events?run_ids=x',
    ...['limit=501', 'limit=0', 'since=-1', 'since=x', 'sinse=1'].map(
      (pair) => `agent/events?run_ids=${runId}&${pair}`,
    ),
    'agent/events/stream',
    `agent/events/stream?run_ids=${runId}&ancestor_run_id=${runId}`,
    `agent/events/stream?ancestor_run_id=${runId}&include_self=maybe`,
    `agent/events/stream?run_ids=${runId}&limit=1`,
  ]
  for (const path of bad) {
    const { status, body } = await cp.request('GET', `/api/v1/${path}`)
    expect([path, status, body.code]).toEqual([path, 400, 'invalid_request'])
  }
  expect(await cp.request('GET', `/api/v1/agent/events/stream?ancestor_run_id=${unknownRun}`)).toMatchObject({
    status: 404,
    body: { code: 'run_not_found' },
  })
})

test('only events of runs that one may see are told', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const personal = await cp.startAgent({ team: false, parent_run_id: runId })
  const member = await addMember(cp, 'member')
  const stranger = await addTeam(cp, 'strangers')
  const query = ids([runId, personal.runId])
  expect(await poll(cp, query)).toHaveLength(2)
  expect((await poll(cp, query, member.key)).map(({ run_id }) => run_id)).toEqual([runId])
  expect(await poll(cp, query, stranger.key)).toEqual([])
  // An agent sees its own run.
  expect((await poll(cp, query, agent.token)).map(({ run_id }) => run_id)).toEqual([runId])
  expect((await poll(cp, query, personal.agent.token)).map(({ run_id }) => run_id)).toEqual([personal.runId])
  await using below = follow(cp, `ancestor_run_id=${runId}&include_self=true`, { key: member.key })
  expect((await below.next()).run_id).toBe(runId)
  await personal.agent.end('SUCCEEDED')
  await agent.end('SUCCEEDED')
  expect(await below.next()).toMatchObject({ run_id: runId, event_type: 'run_succeeded' })
})

test('a transaction that commits late is not passed over, and one that stays open stops nobody', async () => {
  await using cp = await startControlPlane()
  const first = await cp.startAgent()
  const second = await cp.startAgent()
  const query = ids([first.runId, second.runId])
  await using live = follow(cp, query)
  const seen = await poll(cp, query)
  expect(seen).toHaveLength(2)
  await live.next()
  await live.next()

  // Begun before the next event and ended after it, with an id from before.
  const late = await openTransaction(cp)
  const forgotten = await openTransaction(cp)
  try {
    await forgotten.query('select pg_current_xact_id()')
    await reportLate(late, second.runId)
    await first.agent.end('SUCCEEDED')
    const meanwhile = await poll(cp, `${query}&since=${seen.at(-1)?.sequence}`)
    expect(told(meanwhile)).toEqual(['run_succeeded'])
    expect((await live.next()).event_type).toBe('run_succeeded')
    await late.query('commit')
    const after = await poll(cp, `${query}&since=${meanwhile.at(-1)?.sequence}`)
    expect(after).toMatchObject([{ event_type: 'run_failed', run_id: second.runId }])
    // Nobody hinted at it: it was found by looking.
    expect(await live.next()).toMatchObject({ sequence: after[0]?.sequence })
  } finally {
    await late.end()
    await forgotten.end()
  }
})

test('whoever reads while many write gets everything once and in order', async () => {
  await using cp = await startControlPlane()
  const runIds = await Promise.all(Array.from({ length: 8 }, () => cp.createRun({ config: { worker_host: 'nobody' } })))
  const query = ids(runIds)
  await using live = follow(cp, query)
  const read: number[] = []
  let isWriting = true
  const reading = (async () => {
    for (;;) {
      const isLast = !isWriting
      const page = await poll(cp, `${query}&since=${read.at(-1) ?? 0}&limit=7`)
      read.push(...page.map(({ sequence }) => sequence))
      if (isLast && page.length === 0) return
    }
  })()
  const write = async (runId: string) => {
    for (let i = 0; i < 15; i++) {
      const json = { event_type: 'run_in_progress', ref_id: `${i}` }
      const { status } = await cp.request('POST', `/api/v1/agent/events/${runId}`, { json })
      expect(status).toBe(200)
    }
  }
  await Promise.all(runIds.map(write))
  isWriting = false
  await reading
  const all = await poll(cp, `${query}&limit=500`)
  expect(all).toHaveLength(8 * 15)
  expect(read).toEqual(all.map(({ sequence }) => sequence))
  await until(() => live.items.length === all.length)
  expect(live.items.map(({ id, sequence }) => [id, sequence])).toEqual(read.map((sequence) => [sequence, sequence]))
  // Of one run in the order in which it was told.
  for (const runId of runIds)
    expect(all.filter(({ run_id }) => run_id === runId).map(({ ref_id }) => Number(ref_id))).toEqual(
      Array.from({ length: 15 }, (_, i) => i),
    )
})

test('the stream follows the runs below one, those that are started later as well, and goes on where it was cut', async () => {
  await using cp = await startControlPlane()
  const parent = await cp.startAgent()
  const other = await cp.startAgent()
  await using below = follow(cp, `ancestor_run_id=${parent.runId}`)
  await using withSelf = follow(cp, `ancestor_run_id=${parent.runId}&include_self=true`)
  const child = await cp.startAgent({ parent_run_id: parent.runId })
  const grandchild = await cp.startAgent({ parent_run_id: child.runId })
  await other.agent.end('SUCCEEDED')
  await child.agent.end('SUCCEEDED')
  await grandchild.agent.end('FAILED')
  await until(() => below.items.length === 4 && withSelf.items.length === 5)
  const what = below.items.map(({ run_id, event_type }) => [run_id, event_type])
  expect(what).toEqual([
    [child.runId, 'run_in_progress'],
    [grandchild.runId, 'run_in_progress'],
    [child.runId, 'run_succeeded'],
    [grandchild.runId, 'run_failed'],
  ])
  expect(withSelf.items[0]?.run_id).toBe(parent.runId)
  const [, cut] = below.items
  await using again = follow(cp, `ancestor_run_id=${parent.runId}&since=0`, { lastEventId: cut?.sequence ?? 0 })
  await again.next()
  await again.next()
  expect(again.items).toEqual(below.items.slice(2))
  await using since = follow(cp, `run_ids[]=${child.runId}&run_ids[]=${other.runId}&since=${cut?.sequence}`)
  await since.next()
  await since.next()
  expect(since.items.map(({ run_id }) => run_id)).toEqual([other.runId, child.runId])
})

test('another server tells it too, and a server that stops ends its streams', async () => {
  await using cp = await startControlPlane()
  const second = await cp.addServer()
  const { agent, runId } = await cp.startAgent()
  const there = follow(cp, `run_ids=${runId}`, { serverUrl: second.url })
  expect((await there.next()).event_type).toBe('run_in_progress')
  await agent.end('SUCCEEDED')
  expect((await there.next()).event_type).toBe('run_succeeded')
  await second.stop()
  await there.ended
})

test('without notifications it comes by looking', async () => {
  await using cp = await startControlPlane({ useNotify: false })
  const second = await cp.addServer()
  const { agent, runId } = await cp.startAgent()
  await using there = follow(cp, `run_ids=${runId}`, { serverUrl: second.url })
  await there.next()
  await agent.end('SUCCEEDED')
  expect((await there.next()).event_type).toBe('run_succeeded')
})

test('a reader hears a comment from time to time, also where only others have news', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  const db = openDatabase({ connectionString: cp.database.url }, () => {})
  const hints = createHints({ serverId: 'test', log: pino({ level: 'silent' }), useNotify: false })
  const feed = new RunEventFeed({ db, hints }, { keepAliveMs: 300 })
  const stop = new AbortController()
  const viewer = { teamId: unknownRun, userId: null, onlyRunId: null }
  const frames = feed.view({ viewer, scope: { runIds: [unknownRun] }, since: 0 }, stop.signal)
  const news = setInterval(() => hints.publish('run-events'), 20)
  try {
    const next = async () => Buffer.from((await frames.next()).value ?? []).toString()
    expect(await next()).toBe(': connected\n\n')
    const from = performance.now()
    for (let i = 0; i < 3; i++) expect(await next()).toBe(': keep-alive\n\n')
    expect(performance.now() - from).toBeGreaterThan(890)
  } finally {
    clearInterval(news)
    stop.abort()
    await frames.return(undefined)
    await db.close()
  }
})

test('an event that is reported is told and moves nothing', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const other = await cp.startAgent()
  const report = (json: object, init: { key?: string; headers?: Record<string, string> } = {}, run = runId) =>
    cp.request<{ sequence: number; code: string }>('POST', `/api/v1/agent/events/${run}`, { json, ...init })
  const headers = { 'idempotency-key': 'k1' }
  const { status, body } = await report({ event_type: 'run_succeeded', ref_id: 'build 7' }, { headers })
  expect(status).toBe(200)
  expect((await report({ event_type: 'run_succeeded', ref_id: 'build 7' }, { headers })).body).toEqual(body)
  const byAgent = await report({ event_type: 'run_blocked' }, { key: agent.token })
  const audit = `select actor, target, data from audit_events where action = 'event.report' order by id`
  expect(await cp.db.query(audit)).toEqual([
    { actor: expect.stringMatching(/^user:/), target: `run:${runId}`, data: { event_type: 'run_succeeded' } },
    { actor: `execution:${agent.executionId}`, target: `run:${runId}`, data: { event_type: 'run_blocked' } },
  ])
  expect((await poll(cp, `run_ids=${runId}`)).slice(1)).toMatchObject([
    { event_type: 'run_succeeded', ref_id: 'build 7', execution_id: null, sequence: body.sequence },
    { event_type: 'run_blocked', execution_id: agent.executionId, sequence: byAgent.body.sequence },
  ])
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')

  const { executionId } = other.agent
  expect(await report({ event_type: 'run_failed', execution_id: executionId })).toMatchObject({ status: 400 })
  for (const json of [{}, { event_type: 'new_message' }, { event_type: 'run_failed', execution_id: 'x' }])
    expect((await report(json)).body.code).toBe('invalid_request')
  expect((await report({ event_type: 'run_failed' }, {}, unknownRun)).body.code).toBe('run_not_found')
  expect((await report({ event_type: 'run_failed' }, { key: other.agent.token })).body.code).toBe('run_not_found')
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  expect((await report({ event_type: 'run_failed' }, { key: agent.token })).body.code).toBe('execution_token_ended')
})

test('events are kept for 30 days', async () => {
  await using cp = await startControlPlane()
  const { runId } = await cp.startAgent()
  const { agent } = await cp.startAgent()
  await cp.advanceDatabaseClock({ seconds: 29 * 24 * 3600 })
  const { sequence } = (
    await cp.request<{ sequence: number }>('POST', `/api/v1/agent/events/${runId}`, {
      json: { event_type: 'run_in_progress' },
    })
  ).body
  await cp.advanceDatabaseClock({ seconds: 2 * 24 * 3600 })
  await cp.restart()
  await until(async () => (await poll(cp, ids([runId, agent.runId]))).every((event) => event.sequence >= sequence))
  expect(told(await poll(cp, `run_ids=${runId}`))).toContain('run_in_progress')
})
