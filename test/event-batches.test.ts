import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { message } from './support/test-agent.ts'

const chunk = (n: number, text = `word ${n}`) => ({ n, ...message(text) })

test('seq has no holes when server, worker and agent append at the same time', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  const { task_id, execution_id } = assignment
  const batches = Array.from({ length: 40 }, (_, batch) =>
    agent.sendBatch([1, 2, 3].map((index) => chunk(batch * 3 + index))),
  )
  for (let step = 0; step < 20; step++)
    worker.send({
      type: 'task_step',
      data: { task_id, execution_id, step: 'worker_setup', status: 'started', detail: `${step}` },
    })
  await Promise.all(batches)
  // Batches that overtook one another left gaps: the last answer says from where to send again.
  for (let from = 1; from <= 120; ) {
    const answer = await agent.sendBatch(
      Array.from({ length: 60 }, (_, i) => chunk(from + i)).filter(({ n }) => n <= 120),
    )
    from = answer.acked_n + 1
  }
  await agent.sendBatch([
    { n: 121, type: 'turn_outcome', data: { turn_id: agent.turnId, outcome: 'SUCCEEDED', message: '' } },
  ])
  worker.complete(assignment)
  await until(
    () => cp.client.runs.get(runId),
    (run) => !run.is_sandbox_running,
  )
  const events = await cp.eventsOf(runId)
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1))
  const words = events.flatMap((event) => (event.type === 'agent_message_chunk' ? [event.data.content.text] : []))
  expect(words).toEqual(Array.from({ length: 120 }, (_, i) => `word ${i + 1}`))
  expect(events.filter(({ type }) => type === 'setup_step')).toHaveLength(20)
})

test('a batch that is sent twice changes nothing the second time', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const batch = [chunk(1), chunk(2)]
  expect(await agent.sendBatch(batch)).toEqual({ acked_n: 2 })
  expect(await agent.sendBatch(batch)).toEqual({ acked_n: 2 })
  expect(await agent.sendBatch([chunk(2), chunk(3)])).toEqual({ acked_n: 3 })
  const outcome = { type: 'turn_outcome', data: { turn_id: agent.turnId, outcome: 'SUCCEEDED', message: 'once' } }
  // The answer of the first was lost: the agent sends the same again.
  expect(await agent.sendBatch([{ n: 4, ...outcome }])).toEqual({ acked_n: 4 })
  expect(await agent.sendBatch([{ n: 4, ...outcome }])).toEqual({ acked_n: 4 })
  expect((await cp.statesOf(runId)).filter((state) => state === 'SUCCEEDED')).toHaveLength(1)
  expect((await cp.eventsOf(runId)).filter(({ type }) => type === 'agent_message_chunk')).toHaveLength(3)
})

test('a gap is answered with where to send again, and nothing after it is taken', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  expect(await agent.sendBatch([chunk(1), chunk(3), chunk(4)])).toEqual({ acked_n: 1, resend_from: 2 })
  expect(await agent.sendBatch([chunk(3)])).toEqual({ acked_n: 1, resend_from: 2 })
  // In any order, and with duplicates inside of one batch.
  expect(await agent.sendBatch([chunk(4), chunk(2), chunk(3), chunk(2), chunk(1)])).toEqual({ acked_n: 4 })
  const words = (await cp.eventsOf(runId)).flatMap((event) =>
    event.type === 'agent_message_chunk' ? [event.data.content.text] : [],
  )
  expect(words).toEqual(['word 1', 'word 2', 'word 3', 'word 4'])
})

test('the same rules hold for a batch that moves the run', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  const outcome = { type: 'turn_outcome', data: { turn_id: agent.turnId, outcome: 'SUCCEEDED', message: 'x' } }
  expect(await agent.sendBatch([chunk(1), { n: 3, ...outcome }])).toEqual({ acked_n: 1, resend_from: 2 })
  expect(await agent.sendBatch([{ n: 3, ...outcome }, chunk(2), chunk(1)])).toEqual({ acked_n: 3 })
})

test('an event that is no event is kept as event_invalid, and the batch is acknowledged', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const answer = await agent.sendBatch([
    { n: 1, type: 'no_such_type', data: { a: 1 } },
    { n: 2, type: 'agent_message_chunk', data: 'text' },
    { n: 3, type: 'agent_message_chunk', data: [1] },
    { n: 4, type: 'agent_message_chunk', data: null },
    { n: 5, type: 'turn_outcome', data: { outcome: 'WON' } },
    { n: 6, type: 'checkpoint', data: { harness: 'oz', format: 'x', step: 1, blob_id: crypto.randomUUID() } },
    { n: 7, type: 'notice', data: { level: 'info', text: 'fine' }, at: 'yesterday' },
    { n: 8, type: 'run_state', data: { state: 'SUCCEEDED' } },
  ])
  expect(answer).toEqual({ acked_n: 8 })
  const stored = (await cp.eventsOf(runId)).filter(({ execution_id, type }) => execution_id && type !== 'run_state')
  expect(stored.map(({ type }) => type)).toEqual([
    ...Array.from({ length: 6 }, () => 'event_invalid'),
    'notice',
    'event_invalid',
  ])
  expect(stored[0]?.data).toEqual({
    original_type: 'no_such_type',
    reason: 'its type is not in the protocol',
    data: { a: 1 },
  })
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
})

test('names that every object has are no event types and no failure reasons', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  const answer = await agent.sendBatch([
    { n: 1, type: 'constructor', data: {} },
    { n: 2, type: 'model_wait', data: { reason: 'busy', until: '2030-01-01T00:00:00Z', attempt: 1 } },
    { n: 3, type: 'toString', data: {} },
  ])
  expect(answer).toEqual({ acked_n: 3 })
  worker.fail(assignment, { failure_reason: 'constructor', message: 'boom' })
  expect(await cp.waitFor(runId, 'ERROR')).toMatchObject({
    status_message: { message: 'The worker gave no reason. boom', error_code: 'internal_error' },
  })
})

test('an event that the database refuses is kept as event_invalid, and the rest of its batch is taken', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const blob_id = await agent.putBlob('state')
  // Stands for whatever a later schema may check that the protocol does not.
  await cp.db.query('alter table checkpoints add constraint small_steps check (step < 5)')
  const checkpoint = (n: number, step: number) => ({
    n,
    type: 'checkpoint',
    data: { harness: 'oz', format: 'x', step, blob_id },
  })
  const answer = await agent.sendBatch([
    chunk(1),
    checkpoint(2, 4),
    chunk(3),
    checkpoint(4, 5),
    // More than an integer holds: refused by the protocol already.
    checkpoint(5, 2_147_483_648),
    { n: 6, type: 'turn_outcome', data: { turn_id: agent.turnId, outcome: 'SUCCEEDED', message: 'fine' } },
  ])
  expect(answer).toEqual({ acked_n: 6 })
  const stored = (await cp.eventsOf(runId)).filter(({ execution_id, type }) => execution_id && type !== 'run_state')
  expect(stored.map(({ type, data }) => [type, 'reason' in data && data.reason])).toEqual([
    ['agent_message_chunk', false],
    ['checkpoint', false],
    ['agent_message_chunk', false],
    ['event_invalid', 'the database does not take its data'],
    ['event_invalid', 'its data does not fit its type'],
  ])
  expect(await cp.db.query('select step from checkpoints')).toEqual([{ step: 4 }])
  expect((await cp.client.runs.get(runId)).state).toBe('SUCCEEDED')
})

test('text that PostgreSQL cannot store is cleaned everywhere, and 4-byte characters survive', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.sendBatch([
    chunk(1, 'nul \0, lone \ud800, low \udc00, pair 😀, escaped \\u0000'),
    { n: 2, type: 'notice', data: { level: 'info', text: 'x', 'key\0': ['\0'] } },
    { n: 3, type: 'turn_outcome', data: { turn_id: agent.turnId, outcome: 'FAILED', message: 'gave \0 up 😀 \udfff' } },
  ])
  const events = await cp.eventsOf(runId)
  expect(events.find(({ type }) => type === 'agent_message_chunk')?.data).toMatchObject({
    content: { text: 'nul \ufffd, lone \ufffd, low \ufffd, pair 😀, escaped \\u0000' },
  })
  expect((await cp.client.runs.get(runId)).status_message?.message).toBe('gave \ufffd up 😀 \ufffd')
})

test('no text of an agent makes a batch that can never be acknowledged', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const blob_id = await agent.putBlob('state')
  let deep: unknown = 'x'
  for (let level = 0; level < 20_000; level++) deep = [deep]
  const repository = {
    dir: 'a\0b',
    branch: 'lone \ud800',
    base: null,
    head: null,
    commits: 0,
    files_changed: 0,
    insertions: 0,
    deletions: 0,
    uncommitted: false,
    bundle_blob_id: null,
    diff_blob_id: null,
  }
  const body = JSON.stringify({
    events: [
      { n: 1, type: 'checkpoint', at: '', data: { harness: 'o\0z', format: '\ud800', step: 1, blob_id } },
      { n: 2, type: 'workspace_saved', at: '', data: { repositories: [repository], left_out: ['\0'] } },
      { n: 3, type: 'notice', at: 'x'.repeat(100), data: { level: 'info', text: 'DEEP' } },
      { n: 4, type: 'y'.repeat(100), at: 5, data: {} },
      { n: 5, type: 'model_wait', at: 'x', data: { reason: '\0', until: '2030-01-01T00:00:00Z', attempt: 1 } },
    ],
  }).replace('"DEEP"', `${'['.repeat(20_000)}${']'.repeat(20_000)}`)
  const response = await agent.request('/api/v1/agent-channel/events', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  })
  expect([response.status, await response.json()]).toEqual([200, { acked_n: 5 }])
  // The same without an event that moves state: another way to the database.
  const alone = await agent.request('/api/v1/agent-channel/events', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: `{"events":[{"n":6,"type":"notice","at":"","data":{"text":${'['.repeat(20_000)}${']'.repeat(20_000)}}}]}`,
  })
  expect([alone.status, await alone.json()]).toEqual([200, { acked_n: 6 }])
  expect((await cp.eventsOf(runId)).filter(({ type }) => type === 'event_invalid')).toHaveLength(3)
})

test('an event that no batch of an agent could carry is kept as event_invalid with its head', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const large = 'é'.repeat(2_500_000)
  const answer = await agent.sendBatch([
    chunk(1, large),
    { n: 2, type: 'no_such_type', data: { large } },
    { n: 3, type: 'notice', data: large },
  ])
  expect(answer).toEqual({ acked_n: 3 })
  const stored = (await cp.eventsOf(runId)).filter(({ type }) => type === 'event_invalid')
  expect(stored.map(({ data }) => data)).toEqual(
    [/^{"messageId":"m1"/, /^{"large":"é/, /^"éé/].map((head, i) => ({
      original_type: ['agent_message_chunk', 'no_such_type', 'notice'][i],
      reason: 'it is larger than 4194304 bytes',
      data: expect.stringMatching(head),
    })),
  )
  expect(stored.every(({ data }) => (data as unknown as { data: string }).data.length === 1024)).toBe(true)
})

test('what the agent’s spool could not keep is stored as the spool says it', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const data = { original_type: 'tool_call_update', reason: 'It could not be read from the spool.' }
  await agent.sendBatch([
    { n: 1, type: 'event_invalid', data },
    { n: 2, type: 'event_invalid', data: { anything: 'else' } },
  ])
  const stored = (await cp.eventsOf(runId)).filter(({ type }) => type === 'event_invalid')
  expect(stored.map((event) => event.data)).toEqual([
    data,
    { original_type: 'event_invalid', reason: 'its type is not in the protocol', data: { anything: 'else' } },
  ])
})

test('an event of 4 MB is taken whole', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const text = 'é'.repeat(2_000_000)
  expect(await agent.say(text)).toEqual({ acked_n: 1 })
  const stored = (await cp.eventsOf(runId)).find(({ type }) => type === 'agent_message_chunk')
  // Compared here: a failing matcher would print all of it.
  const { content } = (stored?.data ?? {}) as { content?: { text: string } }
  expect(content?.text === text).toBe(true)
})

test('what an execution says after its end is kept as late evidence for 15 minutes, and changes nothing', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  worker.fail(assignment, { failure_reason: 'container_exit', message: 'gone' })
  await cp.waitFor(runId, 'ERROR')

  expect(await agent.say('one more thing')).toEqual({ acked_n: 1, superseded: true })
  expect(await agent.end('SUCCEEDED', 'I did it')).toEqual({ acked_n: 2, superseded: true })
  expect((await cp.client.runs.get(runId)).state).toBe('ERROR')
  expect((await cp.eventsOf(runId)).slice(-2)).toMatchObject([
    { type: 'agent_message_chunk', data: { late: true } },
    { type: 'turn_outcome', data: { outcome: 'SUCCEEDED', late: true } },
  ])
  await expect(agent.hello()).rejects.toMatchObject({ problem: { code: 'execution_superseded', status: 410 } })

  await cp.advanceDatabaseClock({ seconds: 14 * 60 })
  expect(await agent.say('still here')).toEqual({ acked_n: 3, superseded: true })
  await cp.advanceDatabaseClock({ seconds: 2 * 60 })
  await expect(agent.say('too late')).rejects.toMatchObject({
    problem: { code: 'execution_token_ended', status: 401, retryable: false },
  })
})

test('a second word on the same turn is kept as late evidence, while its execution lives', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end('SUCCEEDED', 'first')
  await agent.end('FAILED', 'second')
  expect(await cp.client.runs.get(runId)).toMatchObject({ state: 'SUCCEEDED', status_message: { message: 'first' } })
  expect((await cp.eventsOf(runId)).at(-1)).toMatchObject({
    type: 'turn_outcome',
    data: { outcome: 'FAILED', late: true },
  })
})

test('hello is answered again to the same process and refused to another', async () => {
  await using cp = await startControlPlane()
  const { agent, hello } = await cp.startAgent()
  await agent.say('x')
  expect(await agent.hello()).toEqual({ ...hello, acked_n: 1 })
  await expect(agent.hello({ process_nonce: 'another-process' })).rejects.toMatchObject({
    problem: { code: 'execution_superseded' },
  })
  await expect(agent.hello({ protocol: 99 })).rejects.toMatchObject({
    problem: { code: 'agent_protocol_unsupported', status: 426 },
  })
})

test('a malformed request on the agent channel is the agent’s fault, in words', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  for (const path of ['hello', 'events', 'commands/ack']) {
    const response = await agent.request(`/api/v1/agent-channel/${path}`, { method: 'POST', body: '{"events":[' })
    expect([path, response.status, ((await response.json()) as { code: string }).code]).toEqual([
      path,
      400,
      'json_malformed',
    ])
  }
  await expect(agent.sendBatch(Array.from({ length: 101 }, (_, i) => chunk(i + 1)))).rejects.toMatchObject({
    problem: { code: 'invalid_request' },
  })
})
