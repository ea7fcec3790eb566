import { type FollowUpMode, isApiError } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { savedRepository } from './support/saved-repository.ts'

test('a message to an ended run begins a turn in the agent that still waits', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end('SUCCEEDED', 'first done')
  expect(await agent.nextTurn()).toEqual({ turn: null })
  expect((await cp.client.runs.executions(runId)).executions[0]?.state).toBe('idle')

  const answer = await cp.client.runs.followUp(runId, { message: 'and now the second' })
  expect(answer).toMatchObject({ run_id: runId, mode: 'queue', turn: 2, state: 'INPROGRESS' })
  expect(await agent.nextCommand()).toMatchObject({ type: 'turn' })
  const { turn } = await agent.nextTurn()
  expect(turn).toMatchObject({ number: 2, message: 'and now the second', messages: [] })
  await agent.end('SUCCEEDED', 'second done')
  expect(await agent.nextTurn(true)).toEqual({ turn: null })

  const run = await cp.client.runs.get(runId)
  expect(run).toMatchObject({
    state: 'SUCCEEDED',
    is_sandbox_running: false,
    status_message: { message: 'second done' },
  })
  expect(await cp.statesOf(runId)).toEqual([
    'QUEUED',
    'PENDING',
    'CLAIMED',
    'INPROGRESS',
    'SUCCEEDED',
    'INPROGRESS',
    'SUCCEEDED',
  ])
  const { executions } = await cp.client.runs.executions(runId)
  expect(executions).toHaveLength(1)
})

test('a message to a run without an agent begins a new execution that goes on from checkpoint and workspace', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.checkpoint(3, 'what I know')
  const bundle = await agent.putBlob('a bundle')
  await agent.send({ type: 'workspace_saved', data: { repositories: [savedRepository(bundle)], left_out: [] } })
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(assignment)

  const answer = await cp.client.runs.followUp(runId, { message: 'more' })
  expect(answer.state).toBe('QUEUED')
  const second = await worker.claimNext()
  const heir = cp.agentFor(second)
  const hello = await heir.hello()
  expect(hello).toMatchObject({
    attempt: 2,
    turn: { number: 2, message: 'more', messages: [] },
    continues: { reason: 'follow_up', is_workspace_stale: false },
    checkpoint: { step: 3 },
    workspace: { repositories: [{ dir: 'app' }] },
  })
  const blob = await heir.request(`/api/v1/agent-channel/blobs/${hello.checkpoint?.blob_id}`)
  expect(await blob.text()).toBe('what I know')
})

test('queued messages are turns in the order of their events, without the run at rest in between', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  for (const message of ['two', 'three', 'four']) await cp.client.runs.followUp(runId, { message })
  const seen: (string | undefined)[] = []
  for (;;) {
    await agent.end('SUCCEEDED', `after ${seen.length}`)
    const state = (await cp.client.runs.get(runId)).state
    const { turn } = await agent.nextTurn()
    expect(state).toBe(turn ? 'INPROGRESS' : 'SUCCEEDED')
    if (!turn) break
    seen.push(turn.message)
  }
  expect(seen).toEqual(['two', 'three', 'four'])
  const said = (await cp.eventsOf(runId)).flatMap((event) => (event.type === 'user_message' ? [event.data.text] : []))
  expect(said).toEqual(['do it', 'two', 'three', 'four'])
  expect((await cp.statesOf(runId)).filter((state) => state === 'SUCCEEDED')).toHaveLength(4)
})

test.each<FollowUpMode>(['steer', 'interrupt'])('%s goes to the turn at work, at once', async (mode) => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const answer = await cp.client.runs.followUp(runId, { message: 'rather so', mode })
  expect(answer).toMatchObject({ mode, turn: 1, state: 'INPROGRESS' })
  expect(await agent.nextCommand()).toMatchObject({
    type: 'message',
    payload: { message_id: answer.message_id, mode, text: 'rather so', turn_id: agent.turnId },
  })
  await agent.send({ type: 'message_delivered', data: { message_id: answer.message_id } })
  await agent.send({
    type: 'turn_outcome',
    data: { turn_id: agent.turnId, outcome: 'SUCCEEDED', message: 'ok', taken_message_ids: [answer.message_id] },
  })
  expect(await agent.nextTurn()).toEqual({ turn: null })
  expect(await cp.eventsOf(runId)).toContainEqual(
    expect.objectContaining({ type: 'user_message', data: expect.objectContaining({ turn: 1, mode }) }),
  )
})

test('what was said to a turn too late for it becomes a turn, before what was queued after it', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const taken = await cp.client.runs.followUp(runId, { message: 'taken', mode: 'steer' })
  await cp.client.runs.followUp(runId, { message: 'late', mode: 'steer' })
  await cp.client.runs.followUp(runId, { message: 'queued' })
  const outcome = { turn_id: agent.turnId, outcome: 'SUCCEEDED' as const, message: 'ok' }
  await agent.send({ type: 'turn_outcome', data: { ...outcome, taken_message_ids: [taken.message_id] } })

  expect((await agent.nextTurn()).turn?.message).toBe('late')
  await agent.end('SUCCEEDED')
  expect((await agent.nextTurn()).turn?.message).toBe('queued')
})

test('a message that no checkpoint has is given to the next execution, one that has is not', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  const first = await cp.client.runs.followUp(runId, { message: 'one', mode: 'steer' })
  await cp.client.runs.followUp(runId, { message: 'two', mode: 'interrupt' })
  const blob_id = await agent.putBlob('state')
  await agent.send({
    type: 'checkpoint',
    data: { harness: 'oz', format: 'test', step: 1, blob_id, taken_message_ids: [first.message_id] },
  })
  worker.fail(assignment, { failure_reason: 'agent_invocation', exit_code: 137 })

  await cp.advanceDatabaseClock({ seconds: 5 })
  const heir = cp.agentFor(await worker.claimNext())
  expect(await heir.hello()).toMatchObject({
    turn: { number: 1, messages: [{ mode: 'interrupt', text: 'two' }] },
    continues: { reason: 'retry', is_workspace_stale: true },
  })
})

test('a message before the agent has said hello comes with the hello', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  await cp.client.runs.followUp(runId, { message: 'mind the tests', mode: 'steer' })
  const worker = await cp.connectWorker()
  const agent = cp.agentFor(await worker.claimNext())
  const hello = await agent.hello()
  expect(hello.turn.messages).toMatchObject([{ mode: 'steer', text: 'mind the tests' }])
  expect(hello.continues).toBeNull()
})

test('a question blocks the run, and the answer goes on in the same agent', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end('BLOCKED', 'Which of the two?')
  await agent.nextTurn()
  const blocked = await cp.client.runs.get(runId)
  expect(blocked).toMatchObject({ state: 'BLOCKED', status_message: { message: 'Which of the two?' } })
  // Steering needs a turn at work: without one it is a turn.
  const answer = await cp.client.runs.followUp(runId, { message: 'the left one', mode: 'steer' })
  expect(answer).toMatchObject({ mode: 'queue', turn: 2, state: 'INPROGRESS' })
  expect((await agent.nextTurn()).turn?.message).toBe('the left one')
})

test('a message at the moment of the goodbye is not lost', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  await cp.client.runs.followUp(runId, { message: 'wait' })
  const { turn } = await agent.nextTurn(true)
  expect(turn?.message).toBe('wait')
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  // The answer was lost on its way: asked again, it is the same.
  expect(await agent.nextTurn(true)).toEqual({ turn: null })
  expect((await cp.client.runs.followUp(runId, { message: 'again' })).state).toBe('QUEUED')
  worker.complete(assignment)
  expect((await cp.agentFor(await worker.claimNext()).hello()).turn.message).toBe('again')
})

test('an agent that dies while it rests takes no message with it, and that is no retry', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  await cp.client.runs.followUp(runId, { message: 'are you there' })
  worker.fail(assignment, { failure_reason: 'agent_invocation', exit_code: 1 })
  const heir = cp.agentFor(await worker.claimNext())
  expect((await heir.hello()).turn).toMatchObject({ number: 2, message: 'are you there' })
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
})

test('a message to a failed or cancelled run reopens it', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  await cp.client.runs.cancel(runId)
  await cp.waitFor(runId, 'CANCELLED')
  const answer = await cp.client.runs.followUp(runId, { message: 'after all, do it' })
  expect(answer).toMatchObject({ turn: 2, state: 'QUEUED' })
  const worker = await cp.connectWorker()
  const agent = cp.agentFor(await worker.claimNext())
  expect((await agent.hello()).turn.message).toBe('after all, do it')
  expect((await cp.client.runs.get(runId)).finished_at).toBeNull()
})

test('a cancel ends everything that was asked', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await cp.client.runs.followUp(runId, { message: 'two' })
  await cp.client.runs.cancel(runId)
  await expect(cp.client.runs.followUp(runId, { message: 'three' })).rejects.toSatisfy((error) =>
    isApiError(error, 'run_being_cancelled'),
  )
  await agent.end('CANCELLED', 'Cancelled by user')
  const run = await cp.waitFor(runId, 'CANCELLED')
  expect(run.state).toBe('CANCELLED')
  expect(await agent.nextTurn(true)).toEqual({ turn: null })
})

test('an agent that says goodbye to a run that is being cancelled ends it as cancelled', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end('BLOCKED', 'Which one?')
  await agent.nextTurn()
  await cp.client.runs.cancel(runId)
  expect(await agent.nextTurn(true)).toEqual({ turn: null })
  expect((await cp.client.runs.get(runId)).state).toBe('CANCELLED')
})

test('a repeated follow-up with the same Idempotency-Key is one message', async () => {
  await using cp = await startControlPlane()
  const { runId } = await cp.startAgent()
  const key = { idempotencyKey: 'k1' }
  const first = await cp.client.runs.followUp(runId, { message: 'once' }, key)
  expect(await cp.client.runs.followUp(runId, { message: 'once' }, key)).toEqual(first)
  const said = (await cp.eventsOf(runId)).filter((event) => event.type === 'user_message')
  expect(said).toHaveLength(2)
})

test('messages that are none are refused with the reason', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  const path = `/api/v1/agent/runs/${runId}/followups`
  const codes = []
  for (const json of [{ message: ' ' }, { message: 'x', mode: 'shout' }, {}, { message: 'x'.repeat(1_048_577) }]) {
    const answer = await cp.request('POST', path, { json })
    codes.push([answer.status, answer.body.code])
  }
  expect(codes).toEqual([
    [400, 'message_empty'],
    [400, 'invalid_request'],
    [400, 'invalid_request'],
    [400, 'message_too_large'],
  ])
  // The SDKs' own modes.
  for (const mode of ['normal', 'plan', 'orchestrate'])
    expect((await cp.request<{ mode: string }>('POST', path, { json: { message: 'x', mode } })).body.mode).toBe('queue')
})

test('a run takes a hundred waiting messages and says when it takes no more', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  const sent = Array.from({ length: 104 }, (_, index) =>
    cp.client.runs.followUp(runId, { message: `m${index}` }).then(
      () => 'taken',
      (error) => (isApiError(error, 'follow_up_queue_full') ? 'full' : String(error)),
    ),
  )
  const answers = await Promise.all(sent)
  expect(answers.filter((answer) => answer === 'taken')).toHaveLength(99)
  expect(answers.filter((answer) => answer === 'full')).toHaveLength(5)
})

test('an agent at rest leaves when its slot is needed', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  await cp.createRun({ prompt: 'another' })
  expect(await agent.nextCommand()).toMatchObject({ type: 'end_idle' })
})

test('a run waits for a message while its agent rests, and nobody is asked to leave without need', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent({}, { maxConcurrentTasks: 2 })
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  const other = await cp.createRun({ prompt: 'another' })
  await cp.waitFor(other, 'PENDING')
  const stop = AbortSignal.timeout(1_500)
  const commands: unknown[] = []
  try {
    for await (const { data } of agent.commandEvents(stop)) commands.push(data)
  } catch {
    // The time is over.
  }
  expect(commands).toEqual([])
})

test('several people at once are heard in one order', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const said = await Promise.all(
    Array.from({ length: 12 }, (_, index) =>
      cp.client.runs.followUp(runId, { message: `m${index}`, mode: index % 3 === 0 ? 'queue' : 'steer' }),
    ),
  )
  const events = (await cp.eventsOf(runId)).flatMap((event) => (event.type === 'user_message' ? [event.data] : []))
  const order = events.map(({ message_id }) => message_id)
  await agent.end('SUCCEEDED')
  const turns: (string | undefined)[] = []
  for (let next = await agent.nextTurn(); next.turn; next = await agent.nextTurn()) {
    turns.push(next.turn.turn_id)
    await agent.end('SUCCEEDED')
  }
  // None was taken up by the first turn: each became one, in the order of the log.
  expect(turns).toEqual(order.slice(1))
  expect(new Set(said.map(({ message_id }) => message_id)).size).toBe(12)
})

test('the state of the model is told while the run is at work', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const until = new Date(Date.now() + 60_000).toISOString()
  await agent.send({ type: 'model_wait', data: { reason: 'the model is overloaded', until, attempt: 1 } })
  const waiting = await cp.client.runs.get(runId)
  expect(waiting.state).toBe('INPROGRESS')
  expect(waiting.status_message?.message).toMatch(/: the model is overloaded\. Next try in (59|60) s\.$/)
  expect((await cp.eventsOf(runId)).at(-1)).toMatchObject({ type: 'model_wait', data: { until } })
  await agent.checkpoint(1, 'x')
  expect((await cp.client.runs.get(runId)).status_message?.message).toBe('The agent is at work.')
})
