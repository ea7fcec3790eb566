import { type FailureReason, failureReasons } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { WorkerRefused } from './support/test-worker.ts'

test('task_completed without a word of the agent is a success', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment } = await cp.startAgent()
  worker.complete(assignment, { message: 'exit 0' })
  expect(await cp.waitFor(runId, 'SUCCEEDED')).toMatchObject({ status_message: { message: 'exit 0' } })
})

test('task_completed before any hello is a success too: the worker’s word decides', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  worker.complete(await worker.claimNext())
  const run = await cp.waitFor(runId, 'SUCCEEDED')
  expect(run.status_message?.message).toBe('The agent ended without a word.')
})

test('the agent’s word counts, whatever its worker says afterwards', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.end('SUCCEEDED', 'mine')
  worker.fail(assignment, { failure_reason: 'teardown_command', message: 'rm failed', exit_code: 1 })
  await until(
    () => cp.client.runs.get(runId),
    (run) => !run.is_sandbox_running,
  )
  expect(await cp.client.runs.get(runId)).toMatchObject({ state: 'SUCCEEDED', status_message: { message: 'mine' } })
  expect((await cp.client.runs.executions(runId)).executions).toMatchObject([
    { state: 'ended', outcome: 'SUCCEEDED', failure_reason: 'teardown_command', exit_code: 1, message: 'rm failed' },
  ])
})

test.each(['FAILED', 'CANCELLED', 'SUCCEEDED'] as const)(
  'an agent that exits with 1 after it said %s has not failed once more',
  async (outcome) => {
    await using cp = await startControlPlane()
    const { agent, runId, worker, assignment } = await cp.startAgent()
    await agent.end(outcome, 'mine')
    worker.fail(assignment, { failure_reason: 'agent_invocation', message: 'exit 1', exit_code: 1 })
    await until(
      () => cp.client.runs.get(runId),
      (run) => !run.is_sandbox_running,
    )
    expect((await cp.client.runs.executions(runId)).executions).toMatchObject([
      { state: 'ended', outcome, failure_reason: null, exit_code: 1 },
    ])
  },
)

test('why an attempt’s turn failed outlasts how its process ended, and the next turn begins without it', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  const attempt = async () => (await cp.client.runs.executions(runId)).executions[0]
  await agent.end('FAILED', 'no', 'setup_command_failed')
  await agent.nextTurn()
  await cp.client.runs.followUp(runId, { message: 'again' })
  await agent.nextTurn()
  expect(await attempt()).toMatchObject({ state: 'running', failure_reason: null })
  expect((await cp.client.runs.get(runId)).status_message).not.toHaveProperty('failure_reason')
  await agent.end('FAILED', 'no', 'repository_clone_failed')
  worker.fail(assignment, { failure_reason: 'teardown_command', message: 'rm failed', exit_code: 1 })
  await until(attempt, (execution) => execution?.state === 'ended')
  expect(await attempt()).toMatchObject({ failure_reason: 'repository_clone_failed', message: 'rm failed' })
  expect((await cp.client.runs.get(runId)).status_message).toMatchObject({
    error_code: 'environment_setup_failed',
    failure_reason: 'repository_clone_failed',
  })
})

test('an agent that crashes in a later turn has failed, however its earlier turns ended', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.end('SUCCEEDED', 'mine')
  await agent.nextTurn()
  await cp.client.runs.followUp(runId, { message: 'more' })
  await agent.nextTurn()
  expect((await cp.client.runs.executions(runId)).executions).toMatchObject([{ state: 'running', outcome: null }])
  worker.fail(assignment, { failure_reason: 'agent_invocation', message: 'exit 1', exit_code: 1 })
  await cp.waitFor(runId, 'ERROR')
  expect((await cp.client.runs.executions(runId)).executions).toMatchObject([
    { state: 'ended', outcome: 'ERROR', failure_reason: 'agent_invocation', exit_code: 1 },
  ])
})

test('every failure reason ends as its table says: FAILED for the user’s side, ERROR for ours, or another try', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ maxConcurrentTasks: 0 })
  const reasons = (Object.keys(failureReasons) as FailureReason[]).filter((reason) => reason !== 'task_cancelled')
  for (const reason of reasons) {
    const runId = await cp.createRun()
    const assignment = await worker.claimNext()
    worker.fail(assignment, { failure_reason: reason, message: 'Details.', exit_code: 137 })
    const spec = failureReasons[reason]
    if (spec.retries > 0) {
      await until(
        () => cp.statesOf(runId),
        (states) => states.filter((state) => state === 'QUEUED').length === 2,
      )
      // Without a delay it is offered again at once.
      if (spec.retryDelaySeconds === 0) await worker.nextAssignment()
      await cp.client.runs.cancel(runId)
      continue
    }
    const run = await until(
      () => cp.client.runs.get(runId),
      ({ state }) => state !== 'CLAIMED' && state !== 'PENDING',
    )
    expect([reason, run.state]).toEqual([reason, spec.side === 'user' ? 'FAILED' : 'ERROR'])
    expect(run.status_message).toEqual({
      message: `${spec.meaning} Details.`,
      error_code: spec.code,
      failure_reason: reason,
    })
  }
})

test('an agent that was killed is tried again; one that ended by itself is not', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const killed = await cp.createRun()
  for (let attempt = 1; attempt <= 3; attempt++) {
    const assignment = await worker.claimNext()
    expect(assignment.task_id).toBe(killed)
    worker.fail(assignment, { failure_reason: 'agent_invocation', exit_code: 137, message: `kill ${attempt}` })
    if (attempt === 3) break
    const waiting = await cp.waitFor(killed, 'QUEUED')
    expect(waiting.status_message?.message).toBe(
      `Attempt ${attempt + 1} of 3: agent_invocation, in ${2 ** attempt} seconds. The agent could not be started, or was killed. kill ${attempt}`,
    )
    await cp.advanceDatabaseClock({ seconds: 2 ** attempt + 1 })
  }
  expect((await cp.waitFor(killed, 'ERROR')).status_message?.message).toBe(
    'The agent could not be started, or was killed. kill 3 It was tried 3 times.',
  )

  const plain = await cp.createRun()
  worker.fail(await worker.claimNext(), { failure_reason: 'agent_invocation', exit_code: 1, message: 'usage' })
  await cp.waitFor(plain, 'ERROR')
  expect((await cp.client.runs.executions(plain)).executions).toHaveLength(1)
})

test('a run that waits for its next try goes on saying why', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ maxConcurrentTasks: 0 })
  const killed = await cp.createRun({ config: { worker_host: 'w1' } })
  const rejected = await cp.createRun({ config: { worker_host: 'w1' } })
  const first = await worker.claimNext()
  worker.fail(first, { failure_reason: 'container_start', message: 'no space' })
  worker.reject(await worker.nextAssignment(), 'worker at maximum concurrency.')
  await cp.waitFor(killed, 'QUEUED')
  await cp.waitFor(rejected, 'QUEUED')
  await worker.disconnect()
  // When this one's sentence names the new worker, all sentences were looked at.
  const plain = await cp.createRun({ config: { worker_host: 'nobody' } })
  await cp.connectWorker({ workerId: 'late' })
  const sentence = async (runId: string) => (await cp.client.runs.get(runId)).status_message?.message
  await until(
    () => sentence(plain),
    (text) => text?.includes('Connected: late.') === true,
  )
  expect(await sentence(killed)).toMatch(/^Attempt 2 of 2: container_start, in 10 seconds\. /)
  expect(await sentence(rejected)).toBe(
    'Worker w1 did not take it: worker at maximum concurrency. Waiting for a worker.',
  )
})

test('a retry waits its time, although the queue is looked at all the while', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  worker.fail(await worker.claimNext(), { failure_reason: 'container_start' })
  await cp.waitFor(runId, 'QUEUED')
  const other = await cp.createRun()
  const next = await worker.claimNext()
  expect(next.task_id).toBe(other)
  worker.complete(next)
  expect((await cp.client.runs.why(runId)).workers[0]?.reason).toBe('the run waits before it is tried again')
  await cp.advanceDatabaseClock({ seconds: 11 })
  expect((await worker.nextAssignment()).task_id).toBe(runId)
})

test('what a stopping worker gave up is started elsewhere at once', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.checkpoint(1, 'state')
  const other = await cp.connectWorker({ workerId: 'other' })
  worker.send({ type: 'worker_status', data: { active: 1, draining: true } })
  worker.fail(assignment, { failure_reason: 'graceful_shutdown', exit_code: 143 })
  const next = await other.claimNext()
  expect(next.task_id).toBe(runId)
  expect((await cp.agentFor(next).hello()).checkpoint).toMatchObject({ step: 1 })
})

test('text of a worker that PostgreSQL cannot store ends the run like any other', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ maxConcurrentTasks: 0 })
  const runId = await cp.createRun()
  const first = await worker.nextAssignment()
  worker.reject(first, 'no \0 room')
  await cp.waitFor(runId, 'QUEUED')
  const second = await worker.claimNext()
  const { task_id, execution_id } = second
  worker.send({ type: 'task_step', data: { task_id, execution_id, step: 'start', status: 'failed', detail: 'a\0b' } })
  worker.fail(second, { failure_reason: 'container_exit', message: 'out\0put \ud800' })
  expect((await cp.waitFor(runId, 'ERROR')).status_message?.message).toBe(
    'The container ended before the agent gave an outcome. out\ufffdput \ufffd',
  )
})

test('a reference worker gets what it knows and nothing more', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ ours: false, workerId: 'ref' })
  const { run_id } = await cp.client.runs.create({
    prompt: 'say hi',
    team: false,
    config: { environment: { docker_image: 'debian:12' }, idle_timeout_minutes: 3 },
  })
  const assignment = await worker.nextAssignment()
  expect(assignment).toEqual({
    task_id: run_id,
    execution_id: assignment.execution_id,
    docker_image: 'debian:12',
    env_vars: { WARP_API_KEY: expect.stringMatching(/^wk-exec-/) },
    task: {
      id: run_id,
      title: 'say hi',
      task_definition: { prompt: 'say hi' },
      created_at: expect.any(String),
      updated_at: expect.any(String),
      owner: { Type: 'USER', Id: 1 },
      agent_config_snapshot: expect.objectContaining({ idle_timeout_minutes: 3, harness: { type: 'oz' } }),
      agent_conversation_id: expect.any(String),
    },
  })
  worker.claim(assignment)
  const agent = cp.agentFor(assignment)
  await agent.hello()
  await cp.client.runs.cancel(run_id)
  await cp.advanceDatabaseClock({ seconds: 11 })
  expect(await worker.cancellations.next()).toEqual({ task_id: run_id })
  worker.complete(assignment, { task_state: 'CANCELLED' })
  await cp.waitFor(run_id, 'CANCELLED')
  expect(worker.frames.map(({ type }) => type)).toEqual(['task_assignment', 'task_cancellation'])
})

test('a reference worker is given the message that waits, not the prompt of a turn that is over', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ ours: false })
  const runId = await cp.createRun({ prompt: 'first' })
  const assignment = await worker.claimNext()
  expect(assignment.task.task_definition.prompt).toBe('first')
  await cp.agentFor(assignment).hello()
  worker.complete(assignment)
  await cp.waitFor(runId, 'SUCCEEDED')
  for (const message of ['second', 'third']) await cp.client.runs.followUp(runId, { message })
  expect((await worker.nextAssignment()).task.task_definition.prompt).toBe('second')
})

test('a team’s run is owned by the team on the wire, and our worker gets its token apart from the environment', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  await cp.createRun({ prompt: 'a long prompt' })
  const assignment = await worker.nextAssignment()
  expect(assignment.env_vars).toBeUndefined()
  expect(assignment.execution_token).toMatch(/^wk-exec-/)
  expect(assignment.task).toMatchObject({ owner: { Type: 'TEAM', Id: 1 }, task_definition: { prompt: '' } })
})

test('what a run wants of its container reaches its worker as it was asked for', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const wanted = {
    instance_shape: { vcpus: 0.5, memory_gb: 2 },
    additional_sidecars: [{ image: 'tools:1', mount_path: '/tools', read_write: true }],
  }
  const runId = await cp.createRun({ config: wanted })
  const assignment = await worker.nextAssignment()
  expect(assignment).toMatchObject({ ...wanted, task: { agent_config_snapshot: wanted } })
  expect((await cp.client.runs.get(runId)).agent_config).toMatchObject(wanted)
  const refused = { config: { instance_shape: { vcpus: 0, memory_gb: 2 } } }
  await expect(cp.createRun(refused)).rejects.toMatchObject({ problem: { code: 'invalid_request' } })
})

test('a worker that is newer than the server may say more than that knows', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ maxConcurrentTasks: 2 })
  const runId = await cp.createRun()
  const { task_id, execution_id } = await worker.claimNext()
  const step = { task_id, execution_id, step: 'from_the_future' }
  worker.send({ type: 'task_step', data: { ...step, status: 'started' } })
  const progress = { current: 1, unit: 'stars' }
  worker.send({ type: 'task_step', data: { ...step, status: 'progress', detail: 'a star', progress } })
  worker.sendRaw('{"type":"worker_status","data":{"active":0,"draining":true,"more":1}}')
  await until(
    () => cp.client.workers.list(),
    ({ workers }) => workers[0]?.draining === true,
  )
  const { events } = await cp.client.runs.events(runId)
  expect(events.filter(({ type }) => type === 'setup_step').map(({ data }) => data)).toEqual([
    { step: 'from_the_future', status: 'started' },
    { step: 'from_the_future', status: 'progress', detail: 'a star', progress },
  ])
  const { executions } = await cp.client.runs.executions(runId)
  expect(executions[0]?.waterfall.filter((row) => row.step === 'from_the_future')).toMatchObject([
    { status: 'started', duration_ms: null },
  ])
})

test('a reference worker may send messages that we do not know; ours may not', async () => {
  await using cp = await startControlPlane()
  const reference = await cp.connectWorker({ ours: false, workerId: 'ref' })
  reference.sendRaw('{"type":"from_the_future","data":{}}')
  reference.sendRaw('no JSON')
  reference.sendRaw('{"type":"heartbeat","data":{}}')
  const runId = await cp.createRun()
  const assignment = await reference.nextAssignment()
  reference.sendRaw(
    JSON.stringify({ type: 'task_claimed', data: { task_id: assignment.task_id, worker_id: 'ref', extra: true } }),
  )
  await cp.waitFor(runId, 'CLAIMED')
})

test.each([
  ['no JSON', 'the frame is not JSON'],
  ['{"type":"from_the_future","data":{}}', expect.stringMatching(/^type: Invalid/)],
  ['{"type":"worker_status","data":{"active":0}}', expect.stringMatching(/^data.draining: Invalid/)],
  ['{"type":"task_claimed","data":{"task_id":"x"}}', 'data.task_id: Invalid UUID'],
  [
    '{"type":"worker_hello","data":{"protocol":1,"version":"0","backend":"d","platform":"p","host":"h","max_concurrent_tasks":1,"running":[]}}',
    'it said worker_hello a second time',
  ],
])('our worker’s %s closes its socket as a violation', async (frame, problem) => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  worker.sendRaw(frame)
  expect(await worker.closed).toEqual({ code: 4400, reason: problem })
})

test('a worker’s upgrade is refused in words', async () => {
  await using cp = await startControlPlane()
  const refusal = (options: Parameters<typeof cp.connectWorker>[0]) =>
    cp.connectWorker(options).then(
      () => 'connected',
      (error: unknown) => (error instanceof WorkerRefused ? `${error.problem.status} ${error.problem.code}` : error),
    )
  expect(await refusal({ workerId: '' })).toBe('400 worker_id_reserved')
  expect(await refusal({ workerId: 'warp-9' })).toBe('400 worker_id_reserved')
  expect(await refusal({ workerId: 'a\0b' })).toBe('400 worker_id_reserved')
  expect(await refusal({ workerId: 'x'.repeat(256) })).toBe('400 worker_id_reserved')
  expect(await refusal({ key: 'wk-nobody' })).toBe('401 api_key_unknown')
  const { agent } = await cp.startAgent()
  expect(await refusal({ key: agent.token })).toBe('403 not_authorized')
})

test('the slot of an agent that has ended is free before its end is told', async () => {
  await using cp = await startControlPlane()
  const { worker, assignment } = await cp.startAgent()
  const runId = await cp.createRun()
  worker.finish(assignment)
  expect((await worker.nextAssignment()).task_id).toBe(runId)
})
