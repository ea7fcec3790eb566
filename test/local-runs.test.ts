import type { StartLocalRunRequest, StartLocalRunResponse, TaskAssignment } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { TestAgent } from './support/test-agent.ts'

const start = (cp: ControlPlane, request: Partial<StartLocalRunRequest> = {}) =>
  cp.client.runs.startLocal({ prompt: 'do it', host: 'laptop', ...request })

const agentOf = (cp: ControlPlane, started: StartLocalRunResponse) =>
  new TestAgent(cp.url, {
    task_id: started.run_id,
    execution_id: started.execution_id,
    execution_token: started.execution_token,
  } as TaskAssignment)

async function startAgent(cp: ControlPlane, request: Partial<StartLocalRunRequest> = {}) {
  const started = await start(cp, request)
  const agent = agentOf(cp, started)
  return { started, runId: started.run_id, agent, hello: await agent.hello() }
}

const executionsOf = async (cp: ControlPlane, runId: string) => (await cp.client.runs.executions(runId)).executions

const noticesOf = async (cp: ControlPlane, runId: string) =>
  (await cp.eventsOf(runId)).flatMap((event) => (event.type === 'notice' ? [event.data.text] : []))

const outcomesOf = async (cp: ControlPlane, runId: string) =>
  (
    await cp.db.query<{ outcome: string | null }>('select outcome from turns where run_id = $1 order by number', [
      runId,
    ])
  ).map(({ outcome }) => outcome)

/** Nothing of this team is offered to anyone, and nothing waits. */
async function expectNothingQueued(cp: ControlPlane): Promise<void> {
  const worker = await cp.connectWorker({ workerId: 'eager', maxConcurrentTasks: 5 })
  const decoy = await cp.createRun({ title: 'decoy', config: { worker_host: 'eager' } })
  // Offers of one worker come in the order of the queue: had the local run been in it, it would have come first.
  expect((await worker.nextAssignment()).task_id).toBe(decoy)
  const rows = await cp.db.query(
    `select from runs where execution_location = 'LOCAL' and state in ('QUEUED', 'PENDING')`,
  )
  expect(rows).toEqual([])
}

test('a local run is claimed from the beginning, by nobody’s worker', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ workerId: 'w1' })
  const started = await start(cp, { title: 'mine', config: { worker_host: 'w1', name: 'nightly' } })
  expect(started).toEqual({
    run_id: started.run_id,
    task_id: started.run_id,
    state: 'CLAIMED',
    at_capacity: false,
    conversation_id: expect.any(String),
    execution_id: expect.any(String),
    execution_token: expect.stringMatching(/^wk-exec-/),
    run_url: `${cp.url}/api/v1/agent/runs/${started.run_id}`,
  })
  const run = await cp.client.runs.get(started.run_id)
  expect(run).toMatchObject({
    state: 'CLAIMED',
    execution_location: 'LOCAL',
    host: 'laptop',
    is_sandbox_running: true,
    session_id: started.execution_id,
    conversation_id: started.conversation_id,
    agent_config: { name: 'nightly', idle_timeout_minutes: 0 },
    status_message: { message: 'The agent is starting on laptop.' },
  })
  expect(run.agent_config).not.toHaveProperty('worker_host')
  expect(await cp.statesOf(started.run_id)).toEqual(['QUEUED', 'PENDING', 'CLAIMED'])
  expect(await executionsOf(cp, started.run_id)).toMatchObject([{ worker: 'laptop', state: 'claimed' }])

  await expectNothingQueued(cp)
  expect(worker.assignments.waiting).toBe(0)
  const [audit] = await cp.db.query<{ action: string }>('select action from audit_events where target = $1', [
    `run:${started.run_id}`,
  ])
  expect(audit?.action).toBe('run.create')
})

test('it is listed, watched, steered and ended through the same doors', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, hello } = await startAgent(cp)
  expect(hello).toMatchObject({ execution_location: 'LOCAL', attempt: 1, idle_timeout_ms: 0, turn: { number: 1 } })
  const view = cp.view(runId)
  expect((await view.next()).done).toBe(false)
  await view.return(undefined)
  const { runs } = await cp.client.runs.list({ execution_location: 'LOCAL', state: 'INPROGRESS' })
  expect(runs.map(({ run_id }) => run_id)).toEqual([runId])
  expect((await cp.client.runs.list({ execution_location: 'REMOTE' })).runs).toEqual([])

  await cp.client.runs.followUp(runId, { message: 'faster', mode: 'steer' })
  expect(await agent.nextCommand()).toMatchObject({ type: 'message', payload: { text: 'faster' } })
  await agent.send({
    type: 'turn_outcome',
    data: {
      turn_id: agent.turnId,
      outcome: 'SUCCEEDED',
      message: 'done',
      taken_message_ids: [(await cp.db.query<{ id: string }>('select id from messages'))[0]?.id ?? ''],
    },
  })
  expect(await agent.nextTurn(true)).toEqual({ turn: null })
  expect(await cp.client.runs.get(runId)).toMatchObject({ state: 'SUCCEEDED', is_sandbox_running: false })
})

test('a message for an agent that rests is its next turn; after its end nobody goes on with the run', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await startAgent(cp, { config: { idle_timeout_minutes: 5 } })
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  expect(await cp.client.runs.followUp(runId, { message: 'more' })).toMatchObject({ turn: 2, state: 'INPROGRESS' })
  expect(await agent.nextCommand()).toMatchObject({ type: 'turn' })
  expect(await agent.nextTurn()).toMatchObject({ turn: { number: 2, message: 'more' } })
  await agent.end('BLOCKED', 'Which one?')
  expect((await cp.client.runs.why(runId)).next_step).toContain(`oz run follow-up ${runId}`)
  await agent.nextTurn(true)

  await expect(cp.client.runs.followUp(runId, { message: 'this one' })).rejects.toMatchObject({
    problem: { code: 'run_not_resumable', status: 409 },
  })
  expect((await cp.client.runs.get(runId)).state).toBe('BLOCKED')
  expect((await cp.client.runs.why(runId)).next_step).toContain('oz agent run --conversation')
  await expectNothingQueued(cp)
})

test('a question that nobody can answer any more is answered by a new run in the same conversation', async () => {
  await using cp = await startControlPlane()
  const { agent, started } = await startAgent(cp)
  await agent.checkpoint(1, 'state')
  await agent.end('BLOCKED', 'Which one?')
  // While the agent is there, the question is its own.
  const next = { conversation_id: started.conversation_id, prompt: 'this one' }
  await expect(start(cp, next)).rejects.toMatchObject({ problem: { code: 'conversation_busy' } })
  await agent.nextTurn(true)
  const heir = await startAgent(cp, next)
  expect(heir.hello).toMatchObject({ conversation_id: started.conversation_id, checkpoint: { step: 1 } })
  // Nobody answers it in the first one any more.
  expect(await cp.client.runs.get(started.run_id)).toMatchObject({
    state: 'CANCELLED',
    status_message: { message: 'Another run goes on with its conversation.' },
  })
})

test('a local run inherits the model of its conversation, but not the environment', async () => {
  await using cp = await startControlPlane()
  const environment = { source_repos: [{ url: 'https://example.com/a.git' }] }
  const { agent, runId, worker } = await cp.startAgent({ config: { environment, base_prompt: 'be brief' } })
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  await worker.disconnect()
  const { conversation_id } = await cp.client.runs.get(runId)
  const { hello } = await startAgent(cp, { conversation_id })
  expect(hello.config).toMatchObject({ base_prompt: 'be brief' })
  expect(hello.config).not.toHaveProperty('environment')
  expect((await startAgent(cp, { config: { environment } })).hello.config).toMatchObject({ environment })
})

test('an agent that never says hello is given up after a minute', async () => {
  await using cp = await startControlPlane()
  const { run_id: runId } = await start(cp)
  await cp.client.runs.followUp(runId, { message: 'and this' })
  await cp.advanceDatabaseClock({ seconds: 55 })
  expect(await cp.client.runs.why(runId)).toMatchObject({
    state: 'CLAIMED',
    summary: 'The agent is starting on laptop. Its agent on laptop was not heard of yet.',
  })
  await cp.advanceDatabaseClock({ seconds: 6 })
  const run = await cp.waitFor(runId, 'ERROR')
  expect(run).toMatchObject({
    is_sandbox_running: false,
    status_message: {
      message: 'The agent on laptop was never heard of: it did not begin.',
      error_code: 'resource_unavailable',
    },
  })
  expect(await outcomesOf(cp, runId)).toEqual(['ERROR', 'ERROR'])
  expect(await noticesOf(cp, runId)).toEqual([
    'The agent on laptop has ended, and no worker goes on with a local run. Not begun: turn 2.',
  ])
  await expectNothingQueued(cp)
})

test('a lost agent ends the run, with everything that was asked of it, and is never tried again', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, started } = await startAgent(cp)
  await cp.client.runs.followUp(runId, { message: 'and this' })
  await cp.client.runs.followUp(runId, { message: 'faster', mode: 'steer' })
  await cp.advanceDatabaseClock({ seconds: 20 })
  const why = await cp.client.runs.why(runId)
  expect(why.summary).toMatch(/Its agent on laptop was last heard of 2\d s ago\.$/)
  expect(why.next_step).toMatch(/^See whether the agent still runs on laptop .* the run ends as ERROR\.$/)
  const swept = await start(cp)
  await cp.advanceDatabaseClock({ seconds: 61 })
  await cp.waitFor(swept.run_id, 'ERROR')
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  await cp.advanceDatabaseClock({ seconds: 12 * 60 })
  const run = await cp.waitFor(runId, 'ERROR')
  expect(run.status_message?.message).toMatch(/^The agent on laptop was not heard of since .*Z\.$/)
  expect(await cp.client.runs.why(runId)).toMatchObject({ failure_reason: 'lost' })
  expect(await outcomesOf(cp, runId)).toEqual(['ERROR', 'ERROR', 'ERROR'])
  expect((await noticesOf(cp, runId)).at(-1)).toMatch(/Not begun: turns 2, 3\.$/)
  await expectNothingQueued(cp)

  // What it still had to say is evidence, no more.
  expect(await agent.end('SUCCEEDED', 'late')).toMatchObject({ superseded: true })
  expect((await cp.client.runs.get(runId)).state).toBe('ERROR')
  await expect(cp.client.runs.followUp(runId, { message: 'again' })).rejects.toMatchObject({
    problem: { code: 'run_not_resumable' },
  })
  await expect(agentOf(cp, started).hello()).rejects.toMatchObject({ problem: { code: 'execution_superseded' } })
})

test('a message for a resting agent that is gone ends as ERROR, and goes to nobody else', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await startAgent(cp)
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  await cp.client.runs.followUp(runId, { message: 'are you there' })
  await cp.advanceDatabaseClock({ seconds: 61 })
  await cp.waitFor(runId, 'ERROR')
  expect(await outcomesOf(cp, runId)).toEqual(['SUCCEEDED', 'ERROR'])
  expect(await executionsOf(cp, runId)).toMatchObject([{ state: 'lost', worker: 'laptop' }])
  await expectNothingQueued(cp)
})

test('a cancel is the agent’s to hear; one that is gone is not waited for', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await startAgent(cp)
  await cp.client.runs.cancel(runId)
  expect(await agent.nextCommand()).toMatchObject({ type: 'cancel' })
  expect((await cp.client.runs.why(runId)).next_step).not.toContain('worker')
  // It is slow, but it is there. What nobody performs is swept meanwhile.
  const swept = await start(cp)
  for (const seconds of [25, 25, 11]) {
    await agent.renew()
    await cp.advanceDatabaseClock({ seconds })
  }
  await cp.waitFor(swept.run_id, 'ERROR')
  expect((await cp.client.runs.get(runId)).state).toBe('INPROGRESS')
  await cp.advanceDatabaseClock({ seconds: 20 })
  expect(await cp.waitFor(runId, 'CANCELLED')).toMatchObject({ is_sandbox_running: false })
  expect(await outcomesOf(cp, runId)).toEqual(['CANCELLED'])

  await expectNothingQueued(cp)
})

test('an agent that is asked to stop says how it ended', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await startAgent(cp)
  await cp.client.runs.followUp(runId, { message: 'later' })
  await cp.client.runs.cancel(runId)
  await agent.nextCommand()
  await agent.end('CANCELLED', 'Interrupted.')
  await agent.nextTurn(true)
  expect(await cp.client.runs.get(runId)).toMatchObject({ state: 'CANCELLED', is_sandbox_running: false })
  expect(await outcomesOf(cp, runId)).toEqual(['CANCELLED', 'CANCELLED'])
})

test('a worker of the reference that comes back takes over no local run', async () => {
  await using cp = await startControlPlane()
  const { runId } = await startAgent(cp)
  const connectionOf = async (id: string) =>
    (
      await cp.db.query<{ connection: string | null }>(
        'select worker_connection_id as connection from executions where run_id = $1',
        [id],
      )
    )[0]?.connection
  await expect(cp.connectWorker({ workerId: 'warp-local', ours: false })).rejects.toMatchObject({
    problem: { code: 'worker_id_reserved' },
  })
  const before = await cp.connectWorker({ workerId: 'w1', ours: false })
  const theirs = await cp.createRun()
  await before.claimNext()
  await cp.waitFor(theirs, 'CLAIMED')
  const known = await connectionOf(theirs)
  await before.disconnect()
  // Even if the name were one that a worker has.
  await cp.db.query(`update executions set worker_id = 'w1' where run_id = $1`, [runId])
  await cp.connectWorker({ workerId: 'w1', ours: false })
  await until(
    () => connectionOf(theirs),
    (connection) => connection !== known,
  )
  expect(await connectionOf(runId)).toBeNull()
})

test('a repeated start answers the same run with a fresh token, until an agent has begun', async () => {
  await using cp = await startControlPlane()
  const request = { prompt: 'do it', host: 'laptop' }
  const options = { idempotencyKey: 'k1' }
  const first = await cp.client.runs.startLocal(request, options)
  const second = await cp.client.runs.startLocal(request, options)
  expect(second.execution_token).not.toBe(first.execution_token)
  expect({ ...second, execution_token: '' }).toEqual({ ...first, execution_token: '' })
  expect((await cp.client.runs.list()).runs).toHaveLength(1)
  const stored = await cp.db.query<{ text: string }>(
    'select row_to_json(idempotency_keys)::text as text from idempotency_keys',
  )
  for (const token of [first.execution_token, second.execution_token])
    expect(JSON.stringify(stored)).not.toContain(token)

  await expect(agentOf(cp, first).hello()).rejects.toMatchObject({ problem: { code: 'api_key_unknown' } })
  const agent = agentOf(cp, second)
  await agent.hello()
  await expect(cp.client.runs.startLocal(request, options)).rejects.toMatchObject({
    problem: { code: 'execution_superseded', status: 410 },
  })
  // The token that works stays the one.
  expect(await agent.say('hi')).toEqual({ acked_n: 1 })

  const answers = await Promise.all(
    Array.from({ length: 10 }, () => cp.client.runs.startLocal(request, { idempotencyKey: 'k2' })),
  )
  expect(new Set(answers.map(({ run_id }) => run_id)).size).toBe(1)
})

test('a start that does not fit is refused before anything is made', async () => {
  await using cp = await startControlPlane()
  const worker = (await cp.client.apiKeys.create({ name: 'w', scope: 'worker', worker_id: 'w1' })).raw_api_key
  const { agent } = await startAgent(cp)
  const refusals: [unknown, number, string, string?][] = [
    [{ prompt: 'x' }, 400, 'invalid_request'],
    [{ prompt: 'x', host: '' }, 400, 'invalid_request'],
    [{ host: 'laptop' }, 400, 'prompt_empty'],
    [{ prompt: 'x', host: 'laptop', skill: 'a/b' }, 422, 'operation_not_supported'],
    [{ prompt: 'x', host: 'laptop', config: { mcp_servers: {} } }, 422, 'operation_not_supported'],
    [{ prompt: 'x', host: 'laptop', config: { harness: { reasoning_level: 'high' } } }, 422, 'operation_not_supported'],
    [{ prompt: 'x', host: 'laptop', config: { environment_id: 'x' } }, 404, 'environment_not_found'],
    [
      { prompt: 'x', host: 'laptop', conversation_id: '00000000-0000-4000-8000-000000000000' },
      404,
      'conversation_not_found',
    ],
    [{ prompt: 'x', host: 'laptop', unknown: 1 }, 400, 'invalid_request'],
    [{ prompt: 'x', host: 'laptop' }, 403, 'not_authorized', worker],
    [{ prompt: 'x', host: 'laptop' }, 403, 'not_authorized', agent.token],
  ]
  for (const [json, status, code, key] of refusals) {
    const answer = await cp.request('POST', '/api/v1/agent/local-runs', { json, ...(key ? { key } : {}) })
    expect([json, answer.status, answer.body.code]).toEqual([json, status, code])
  }
  expect((await cp.client.runs.list()).runs).toHaveLength(1)
})

test('what is not saved is said', async () => {
  await using cp = await startControlPlane()
  const { run_id } = await start(cp, { saves_workspace: false, host: 'lap\u0000top' })
  expect(await noticesOf(cp, run_id)).toHaveLength(1)
  expect(await noticesOf(cp, (await start(cp)).run_id)).toEqual([])
})

test('a fork of a local run is performed by a worker', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await startAgent(cp)
  await agent.checkpoint(1, 'state')
  await agent.end('SUCCEEDED')
  const { run_id } = await cp.client.runs.fork(runId, { prompt: 'go on' })
  const worker = await cp.connectWorker()
  const assignment = await worker.claimNext()
  expect(assignment.task_id).toBe(run_id)
  const hello = await cp.agentFor(assignment).hello()
  expect(hello).toMatchObject({ execution_location: 'REMOTE', idle_timeout_ms: 600_000 })
  expect((await cp.client.runs.get(run_id)).host).toBeUndefined()
  await until(
    () => executionsOf(cp, run_id),
    ([execution]) => execution?.worker === 'w1',
  )
})
