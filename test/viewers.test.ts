import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import type { ServerSentEvent } from './support/server-sent-events.ts'
import { message, type TestAgent } from './support/test-agent.ts'

/** Says `count` words in full batches. */
async function sayMany(agent: TestAgent, count: number): Promise<void> {
  for (let left = count; left > 0; left -= 100)
    await agent.send(...Array.from({ length: Math.min(100, left) }, (_, i) => message(`word ${count - left + i}`)))
}

async function collect(events: AsyncIterable<ServerSentEvent>): Promise<ServerSentEvent[]> {
  const all: ServerSentEvent[] = []
  for await (const event of events) all.push(event)
  return all
}

const seqs = (events: ServerSentEvent[]) => events.filter(({ event }) => event !== 'end').map(({ id }) => Number(id))
const upTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1)

async function endRun(cp: ControlPlane, started: Awaited<ReturnType<ControlPlane['startAgent']>>): Promise<void> {
  await started.agent.end('SUCCEEDED')
  started.worker.complete(started.assignment)
  await until(
    () => cp.client.runs.get(started.runId),
    (run) => !run.is_sandbox_running,
  )
}

test('a page of the log has what came after since, and says when it is complete', async () => {
  await using cp = await startControlPlane()
  const started = await cp.startAgent()
  const { agent, runId } = started
  await sayMany(agent, 10)
  const page = await cp.client.runs.events(runId, { since: 5, limit: 4 })
  expect(page).toMatchObject({ next_since: 9, is_complete: false })
  expect(page.events.map(({ seq }) => seq)).toEqual([6, 7, 8, 9])
  expect(await cp.client.runs.events(runId, { since: 15 })).toEqual({ events: [], next_since: 15, is_complete: false })
  await agent.end('SUCCEEDED')
  // Terminal, but its execution lives: more may come.
  expect((await cp.client.runs.events(runId)).is_complete).toBe(false)
  await endRun(cp, started)
  expect((await cp.client.runs.events(runId)).is_complete).toBe(true)
  expect((await cp.client.runs.events(runId, { limit: 15 })).is_complete).toBe(false)
  expect((await cp.client.runs.events(runId, { since: 16, limit: 1 })).is_complete).toBe(true)
  expect(await cp.client.runs.events(runId, { since: 999 })).toEqual({ events: [], next_since: 999, is_complete: true })
})

test('since and limit have bounds', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  for (const query of [
    'limit=0',
    'limit=501',
    'limit=x',
    'limit=1.5',
    'since=-1',
    'since=x',
    'since=1e400',
    'sinse=1',
  ]) {
    const { status, body } = await cp.request('GET', `/api/v1/agent/runs/${runId}/events?${query}`)
    expect([query, status, body.code]).toEqual([query, 400, 'invalid_request'])
  }
})

test('a viewer gets the whole log and then the end, which comes when no execution lives any more', async () => {
  await using cp = await startControlPlane()
  const started = await cp.startAgent()
  const viewing = collect(cp.view(started.runId))
  await sayMany(started.agent, 20)
  await started.agent.end('SUCCEEDED')
  await sleep(100)
  let hasEnded = false
  void viewing.then(() => {
    hasEnded = true
  })
  await started.agent.say('a word after the outcome')
  await sleep(50)
  expect(hasEnded).toBe(false)
  started.worker.complete(started.assignment)
  const events = await viewing
  expect(seqs(events)).toEqual(upTo(27))
  expect(events.at(-1)).toMatchObject({ event: 'end', data: '{"last_seq":27}' })
  expect(events[0]).toMatchObject({ id: '1', event: 'run_state' })
  expect(JSON.parse(events[0]?.data ?? '')).toMatchObject({ seq: 1, type: 'run_state', data: { state: 'QUEUED' } })
  // The stream and the page say the same.
  const page = await cp.eventsOf(started.runId)
  expect(events.slice(0, -1).map(({ data }) => JSON.parse(data))).toEqual(page)
})

test('since and Last-Event-ID are exclusive, and the header wins', async () => {
  await using cp = await startControlPlane()
  const started = await cp.startAgent()
  await sayMany(started.agent, 10)
  await endRun(cp, started)
  expect(seqs(await collect(cp.view(started.runId, { since: 12 })))).toEqual([13, 14, 15, 16])
  expect(seqs(await collect(cp.view(started.runId, { since: 1, lastEventId: 14 })))).toEqual([15, 16])
  expect(seqs(await collect(cp.view(started.runId, { lastEventId: 16 })))).toEqual([])
  expect(seqs(await collect(cp.view(started.runId, { lastEventId: 1_000 })))).toEqual([])
  await expect(collect(cp.view(started.runId, { lastEventId: 'x' }))).rejects.toThrow('HTTP 400')
})

test('100 forced disconnects in a run of 10,000 events leave no gap and no duplicate', async () => {
  await using cp = await startControlPlane()
  const started = await cp.startAgent()
  const { agent, runId } = started
  const total = 10_000
  const saying = sayMany(agent, total).then(() => endRun(cp, started))
  const seen: number[] = []
  let connections = 0
  for (let isOver = false; !isOver; ) {
    connections++
    let here = 0
    for await (const { id, event } of cp.view(runId, { lastEventId: seen.at(-1) ?? 0 })) {
      if (event === 'end') isOver = true
      else seen.push(Number(id))
      // Cut in the middle of whatever is on its way.
      if (++here >= 90 && connections <= 100) break
    }
  }
  await saying
  expect(connections).toBeGreaterThan(100)
  expect(seen.length).toBe(total + 6)
  expect(seen.every((seq, index) => seq === index + 1)).toBe(true)
})

test('viewers who come at different times see the same, and one that does not read holds nobody up', async () => {
  await using cp = await startControlPlane()
  const started = await cp.startAgent()
  const { agent, runId } = started
  const early = [collect(cp.view(runId)), collect(cp.view(runId))]
  const stalled = cp.view(runId)
  await stalled.next()
  const big = 'x'.repeat(20_000)
  for (let i = 0; i < 20; i++) await agent.send(...Array.from({ length: 100 }, () => message(big)))
  const late = collect(cp.view(runId))
  await endRun(cp, started)
  for (const events of await Promise.all([...early, late])) expect(seqs(events)).toEqual(upTo(2_006))
  // 40 MB behind, it still gets everything in order.
  expect(seqs(await collect(stalled))).toEqual(upTo(2_006).slice(1))
})

test('a page of large events ends early, and nobody misses any of them', async () => {
  await using cp = await startControlPlane()
  const started = await cp.startAgent()
  const { agent, runId } = started
  const early = collect(cp.view(runId))
  const large = 'x'.repeat(3_000_000)
  for (let i = 0; i < 8; i++) await agent.say(large)
  const page = await cp.client.runs.events(runId, { since: 5, limit: 500 })
  expect([page.events.length, page.next_since, page.is_complete]).toEqual([3, 8, false])
  await endRun(cp, started)
  expect((await cp.client.runs.events(runId, { since: 5, limit: 500 })).is_complete).toBe(false)
  for (const events of [await early, await collect(cp.view(runId)), await collect(cp.view(runId, { since: 6 }))])
    expect(seqs(events)).toEqual(upTo(14).slice(14 - seqs(events).length))
  expect((await cp.eventsOf(runId)).map(({ seq }) => seq)).toEqual(upTo(14))
})

test('a viewer goes on at another server where the first one left it', async () => {
  await using cp = await startControlPlane()
  const started = await cp.startAgent()
  const { agent, runId } = started
  await sayMany(agent, 50)
  const seen: number[] = []
  const first = (async () => {
    for await (const { id } of cp.view(runId)) seen.push(Number(id))
  })()
  await until(() => seen.length === 55)
  await cp.stop()
  // The server closed the stream, without an end event: the viewer knows that there is more.
  await first.catch(() => {})
  const second = await cp.addServer()
  agent.moveTo(second.url)
  await sayMany(agent, 50)
  await agent.end('SUCCEEDED')
  const back = await cp.connectWorker({
    serverUrl: second.url,
    running: [{ task_id: runId, execution_id: agent.executionId }],
  })
  back.complete(started.assignment)
  const rest = await collect(cp.view(runId, { serverUrl: second.url, lastEventId: seen.at(-1) ?? 0 }))
  expect([...seen, ...seqs(rest)]).toEqual(upTo(106))
  expect(rest.at(-1)?.event).toBe('end')
})

test.each([true, false])('two servers show the same run live (NOTIFY: %s)', async (useNotify) => {
  await using cp = await startControlPlane({ useNotify })
  const other = await cp.addServer()
  const started = await cp.startAgent()
  const viewing = [collect(cp.view(started.runId)), collect(cp.view(started.runId, { serverUrl: other.url }))]
  await sayMany(started.agent, 120)
  started.agent.moveTo(other.url)
  await sayMany(started.agent, 120)
  await endRun(cp, started)
  for (const events of await Promise.all(viewing)) {
    expect(seqs(events)).toEqual(upTo(246))
    expect(events.at(-1)?.event).toBe('end')
  }
})

test('NOTIFY wakes the viewers of another server long before they would have looked', async () => {
  await using cp = await startControlPlane()
  const other = await cp.addServer()
  const { agent, runId } = await cp.startAgent()
  const seen: number[] = []
  const viewing = (async () => {
    for await (const { id } of cp.view(runId, { serverUrl: other.url })) seen.push(Number(id))
  })()
  await until(() => seen.length === 5)
  for (let count = 6; count <= 8; count++) {
    await agent.say('now')
    // A tail looks by itself after 3 s.
    await until(() => seen.length === count, Boolean, { timeoutMs: 1_000 })
  }
  await cp.stop()
  await viewing
})

test('without NOTIFY runs and cancels still find their way between servers', async () => {
  await using cp = await startControlPlane({ useNotify: false })
  const other = await cp.addServer()
  const worker = await cp.connectWorker({ serverUrl: other.url })
  const runId = await cp.createRun()
  const assignment = await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await cp.client.runs.cancel(runId)
  await worker.cancellations.next()
  const agent = cp.agentFor(assignment, other.url)
  await agent.hello()
  expect(await agent.nextCommand()).toMatchObject({ type: 'cancel' })
})

test('nobody sees the log of a run that they may not see', async () => {
  await using cp = await startControlPlane()
  const unknown = '00000000-0000-4000-8000-000000000000'
  for (const path of [unknown, 'not-an-id', '%00'])
    for (const rest of ['/events', '/events/stream', '', '/why', '/executions', '/workspace'])
      expect(await cp.request('GET', `/api/v1/agent/runs/${path}${rest}`)).toMatchObject({
        status: 404,
        body: { code: 'run_not_found' },
      })
})
