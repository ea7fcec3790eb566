import type { MessageHeader, RunEvent, SendMessageResponse } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addMember, addTeam } from './support/people.ts'

const unknownId = '00000000-0000-4000-8000-000000000000'

interface Wish {
  from: string
  to: string[]
  subject?: string
  body?: string
}

function send(
  cp: ControlPlane,
  { from, to, subject = 'Hello', body = 'Look at the tests.' }: Wish,
  init: { key?: string; headers?: Record<string, string> } = {},
) {
  const json = { sender_run_id: from, to, subject, body }
  return cp.request<SendMessageResponse & { code: string; detail: string }>('POST', '/api/v1/agent/messages', {
    json,
    ...init,
  })
}

const inbox = (cp: ControlPlane, runId: string, query = '', key = cp.adminKey) =>
  cp.request<MessageHeader[] & { code: string }>('GET', `/api/v1/agent/messages/${runId}${query}`, { key })

const waitingRun = (cp: ControlPlane) => cp.createRun({ config: { worker_host: 'nobody' } })

const saidTo = async (cp: ControlPlane, runId: string) =>
  (await cp.eventsOf(runId)).flatMap((event) => (event.type === 'user_message' ? [event.data] : [])).slice(1)

test('a message waits in the inbox until it is read, and is told as an event', async () => {
  await using cp = await startControlPlane()
  const [from, to] = [await waitingRun(cp), await waitingRun(cp)]
  const { status, body } = await send(cp, { from, to: [to], subject: 'Schema', body: 'It has changed.' })
  expect([status, body.message_ids]).toEqual([200, [expect.any(String)]])
  const id = body.message_ids[0] ?? ''
  const header = { message_id: id, sender_run_id: from, subject: 'Schema', delivered_at: null, read_at: null }
  expect((await inbox(cp, to)).body).toEqual([{ ...header, sent_at: expect.stringMatching(/Z$/) }])
  expect((await inbox(cp, from)).body).toEqual([])
  // Nobody is at work on it: its turn stays as it was.
  expect(await saidTo(cp, to)).toEqual([])
  const { body: events } = await cp.request<RunEvent[]>('GET', `/api/v1/agent/events?run_ids=${to}&run_ids=${from}`)
  expect(events).toMatchObject([{ event_type: 'new_message', run_id: to, ref_id: id }])

  expect(await cp.client.messages.markDelivered(id)).toBeUndefined()
  const [delivered] = (await inbox(cp, to, '?unread=true')).body
  expect(delivered).toMatchObject({ delivered_at: expect.any(String), read_at: null })
  await cp.client.messages.markDelivered(id)
  expect((await inbox(cp, to)).body).toEqual([delivered])

  const read = await cp.client.messages.read(id)
  expect(read).toEqual({ ...delivered, body: 'It has changed.', read_at: expect.any(String) })
  expect(await cp.client.messages.read(id)).toEqual(read)
  expect((await inbox(cp, to, '?unread=true')).body).toEqual([])
  expect((await inbox(cp, to, '?unread=false')).body).toHaveLength(1)
})

test('an agent at work is told the message before its next step, and it is delivered once a checkpoint has it', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const from = await waitingRun(cp)
  const { message_ids } = (await send(cp, { from, to: [runId], subject: 'Schema', body: 'It has\nchanged.' })).body
  const text = `Message from run ${from}: Schema\n\nIt has\nchanged.`
  expect(await agent.nextCommand()).toMatchObject({
    type: 'message',
    payload: { message_id: message_ids[0], mode: 'steer', text, turn_id: agent.turnId },
  })
  expect(await saidTo(cp, runId)).toMatchObject([{ text, mode: 'steer', author: `run ${from}` }])
  expect((await inbox(cp, runId)).body).toMatchObject([{ delivered_at: null, read_at: null }])
  const blob_id = await agent.putBlob('state')
  const data = { harness: 'oz', format: 'test', step: 1, blob_id, taken_message_ids: message_ids }
  await agent.send({ type: 'checkpoint', data })
  expect((await inbox(cp, runId)).body).toMatchObject([{ delivered_at: expect.any(String), read_at: null }])
})

test('what comes too late for an agent at work becomes its next turn', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const from = await waitingRun(cp)
  await send(cp, { from, to: [runId], subject: 'Late', body: 'Sorry.' })
  await agent.end('SUCCEEDED')
  expect((await inbox(cp, runId)).body).toMatchObject([{ delivered_at: null }])
  expect((await agent.nextTurn()).turn).toMatchObject({ message: `Message from run ${from}: Late\n\nSorry.` })
  expect((await inbox(cp, runId)).body).toMatchObject([{ delivered_at: expect.any(String) }])
})

test('a run that waits for an answer, or is being cancelled, is not disturbed', async () => {
  await using cp = await startControlPlane()
  const from = await waitingRun(cp)
  const asking = await cp.startAgent()
  await asking.agent.end('BLOCKED', 'Which?')
  const cancelling = await cp.startAgent()
  await cp.client.runs.cancel(cancelling.runId)
  expect((await send(cp, { from, to: [asking.runId, cancelling.runId] })).status).toBe(200)
  for (const { runId } of [asking, cancelling]) {
    expect(await saidTo(cp, runId)).toEqual([])
    expect((await inbox(cp, runId)).body).toMatchObject([{ delivered_at: null }])
  }
  expect((await cp.client.runs.get(asking.runId)).state).toBe('BLOCKED')
})

test('a recipient that has ended refuses the whole message, and nothing is stored', async () => {
  await using cp = await startControlPlane()
  const [from, waiting, over] = [await waitingRun(cp), await waitingRun(cp), await waitingRun(cp)]
  await cp.client.runs.cancel(over)
  const { status, body } = await send(cp, { from, to: [waiting, over] })
  expect([status, body.code]).toEqual([422, 'message_recipient_ended'])
  expect(body.detail).toContain(over)
  expect((await inbox(cp, waiting)).body).toEqual([])
  expect((await cp.request<RunEvent[]>('GET', `/api/v1/agent/events?run_ids=${waiting}`)).body).toEqual([])
  // One that has ended may still be spoken for, and reads what it was sent.
  expect((await send(cp, { from: over, to: [waiting] })).status).toBe(200)
  expect((await inbox(cp, over)).status).toBe(200)
})

test('ids come in the order of the recipients, each once, and a repeated request sends nothing again', async () => {
  await using cp = await startControlPlane()
  const [from, first, second] = [await waitingRun(cp), await waitingRun(cp), await waitingRun(cp)]
  const headers = { 'idempotency-key': 'once' }
  const wish = { from, to: [second, first, second.toUpperCase()] }
  const { body } = await send(cp, wish, { headers })
  expect((await send(cp, wish, { headers })).body).toEqual(body)
  const idsOf = async (runId: string) => (await inbox(cp, runId)).body.map(({ message_id }) => message_id)
  expect([...(await idsOf(second)), ...(await idsOf(first))]).toEqual(body.message_ids)
  await send(cp, wish)
  expect(await idsOf(second)).toHaveLength(2)
})

test('runs that write to one another at the same time do not block each other', async () => {
  await using cp = await startControlPlane()
  const agents = [await cp.startAgent(), await cp.startAgent(), await cp.startAgent()]
  const runIds = agents.map(({ runId }) => runId)
  const orders = [
    [0, 1, 2],
    [2, 1, 0],
    [1, 2, 0],
  ].map((order) => order.map((at) => runIds[at] ?? ''))
  const sent = Array.from({ length: 30 }, (_, i) => send(cp, { from: runIds[i % 3] ?? '', to: orders[i % 3] ?? [] }))
  const working = agents.flatMap(({ agent }) => Array.from({ length: 10 }, (_, i) => agent.say(`word ${i}`)))
  expect((await Promise.all(sent)).map(({ status }) => status)).toEqual(sent.map(() => 200))
  await Promise.all(working)
  for (const runId of runIds) expect((await inbox(cp, runId)).body).toHaveLength(30)
})

test('an inbox takes 1,000 messages that have not reached their run; one that has none left refuses for all', async () => {
  await using cp = await startControlPlane()
  const [from, full, other] = [await waitingRun(cp), await waitingRun(cp), await waitingRun(cp)]
  await cp.db.query(
    `insert into run_messages (id, sender_run_id, recipient_run_id, subject, body)
     select gen_random_uuid(), $1, $2, 's', 'b' from generate_series(1, 999)`,
    [from, full],
  )
  const last = await send(cp, { from, to: [full] })
  expect(last.status).toBe(200)
  const refused = await send(cp, { from, to: [other, full] })
  expect([refused.status, refused.body.code]).toEqual([409, 'message_inbox_full'])
  expect(refused.body.detail).toContain(`Run ${full} has 1000 messages`)
  expect((await inbox(cp, other)).body).toEqual([])
  await cp.client.messages.read(last.body.message_ids[0] ?? '')
  expect((await send(cp, { from, to: [other, full] })).status).toBe(200)
})

test('the inbox is read by pages, the oldest first', async () => {
  await using cp = await startControlPlane()
  const [from, to] = [await waitingRun(cp), await waitingRun(cp)]
  for (let i = 0; i < 5; i++) await send(cp, { from, to: [to], subject: `s${i}` })
  const subjects = async (query: string) => (await inbox(cp, to, query)).body.map(({ subject }) => subject)
  expect(await subjects('?limit=2')).toEqual(['s0', 's1'])
  await cp.advanceDatabaseClock({ seconds: 60 })
  await send(cp, { from, to: [to], subject: 's5' })
  const last = (await inbox(cp, to)).body.at(-1)
  expect(await subjects(`?since=${last?.sent_at}`)).toEqual(['s5'])
  for (const query of ['?limit=0', '?limit=101', '?unread=maybe', '?since=yesterday', '?sinse=1'])
    expect([query, (await inbox(cp, to, query)).status]).toEqual([query, 400])
})

test('a message has a subject, recipients and bounds, and takes any text', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const from = await waitingRun(cp)
  for (const wish of [
    { from, to: [] },
    { from, to: ['x'] },
    { from, to: [runId], subject: '' },
    { from, to: [runId], subject: 's'.repeat(1025) },
    { from, to: [runId], body: 'b'.repeat(131_073) },
    { from: 'x', to: [runId] },
  ])
    expect((await send(cp, wish)).body.code).toBe('invalid_request')
  expect((await send(cp, { from, to: [runId], subject: 's'.repeat(1024), body: '€'.repeat(131_072) })).status).toBe(200)
  expect((await send(cp, { from, to: [runId], subject: 'a\0b', body: '\ud800\0' })).status).toBe(200)
  expect((await inbox(cp, runId)).body[1]?.subject).toBe('a\ufffdb')
  expect((await agent.nextCommand()).type).toBe('message')
})

test('people send from and to runs that they see, and read the inboxes of those', async () => {
  await using cp = await startControlPlane()
  const [from, to] = [await waitingRun(cp), await waitingRun(cp)]
  const personal = await cp.createRun({ team: false, config: { worker_host: 'nobody' } })
  const { key } = await addMember(cp, 'member')
  const stranger = await addTeam(cp, 'strangers')
  expect((await send(cp, { from, to: [to] }, { key })).status).toBe(200)
  expect((await send(cp, { from, to: [to, personal] }, { key })).body.code).toBe('run_not_found')
  expect((await send(cp, { from: personal, to: [to] }, { key })).body.code).toBe('run_not_found')
  expect((await send(cp, { from, to: [unknownId] })).body.code).toBe('run_not_found')
  const { message_ids } = (await send(cp, { from, to: [personal] })).body
  for (const who of [key, stranger.key]) {
    expect((await inbox(cp, personal, '', who)).body.code).toBe('run_not_found')
    for (const what of ['read', 'delivered'])
      expect(await cp.request('POST', `/api/v1/agent/messages/${message_ids[0]}/${what}`, { key: who })).toMatchObject({
        status: 404,
        body: { code: 'message_not_found' },
      })
  }
  for (const id of ['x', unknownId])
    expect((await cp.request('POST', `/api/v1/agent/messages/${id}/read`)).body.code).toBe('message_not_found')
})

test('an agent sends as its own run, to its team, and reads its own inbox alone', async () => {
  await using cp = await startControlPlane()
  const mine = await cp.startAgent()
  const other = await cp.startAgent()
  const personal = await cp.startAgent({ team: false })
  const stranger = await addTeam(cp, 'strangers')
  const foreign = (await cp.clientFor(stranger.key).runs.create({ prompt: 'x' })).run_id
  const { token: key } = mine.agent
  const { message_ids } = (await send(cp, { from: mine.runId, to: [other.runId] }, { key })).body
  expect(message_ids).toHaveLength(1)
  expect((await send(cp, { from: other.runId, to: [mine.runId] }, { key })).body.code).toBe('run_not_found')
  for (const to of [personal.runId, foreign])
    expect((await send(cp, { from: mine.runId, to: [to] }, { key })).body.code).toBe('run_not_found')
  // Nobody but their person speaks through personal runs: those reach everything.
  const second = await cp.startAgent({ team: false })
  const bySecond = { key: second.agent.token }
  expect((await send(cp, { from: second.runId, to: [personal.runId, mine.runId] }, bySecond)).status).toBe(200)

  expect((await inbox(cp, mine.runId, '', key)).body).toHaveLength(1)
  expect((await inbox(cp, other.runId, '', key)).body.code).toBe('run_not_found')
  const read = (by: string) => cp.request('POST', `/api/v1/agent/messages/${message_ids[0]}/read`, { key: by })
  expect((await read(key)).body.code).toBe('message_not_found')
  expect((await read(other.agent.token)).status).toBe(200)

  // The message that it was told came too late for this turn, and is the next one.
  await mine.agent.end('SUCCEEDED')
  await mine.agent.nextTurn()
  await mine.agent.end('SUCCEEDED')
  await mine.agent.nextTurn(true)
  const late = await send(cp, { from: mine.runId, to: [other.runId] }, { key })
  expect(late.body.code).toBe('execution_token_ended')
})

test('who says inside of which run it acts reaches that run’s messages alone', async () => {
  await using cp = await startControlPlane()
  const [from, to] = [await waitingRun(cp), await waitingRun(cp)]
  const id = (await send(cp, { from, to: [to] })).body.message_ids[0] ?? ''
  await expect(cp.client.messages.read(id, { forRun: from })).rejects.toMatchObject({
    problem: { code: 'message_not_found' },
  })
  await expect(cp.client.messages.markDelivered(id, { forRun: from })).rejects.toMatchObject({
    problem: { code: 'message_not_found' },
  })
  expect((await cp.client.messages.read(id, { forRun: to })).message_id).toBe(id)
})
