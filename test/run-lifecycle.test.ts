import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

test('a run goes from the queue to its outcome, one event per transition', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun({ prompt: 'say hi', title: 'Greeting' })

  const assignment = await worker.nextAssignment()
  expect(assignment).toMatchObject({ task_id: runId, task: { id: runId, title: 'Greeting' } })
  worker.claim(assignment)
  await cp.waitFor(runId, 'CLAIMED')
  const agent = cp.agentFor(assignment)
  const hello = await agent.hello()
  expect(hello).toMatchObject({
    run_id: runId,
    execution_id: assignment.execution_id,
    attempt: 1,
    turn: { number: 1, message: 'say hi' },
    acked_n: 0,
    checkpoint: null,
    workspace: null,
  })
  expect(await cp.client.runs.get(runId)).toMatchObject({
    state: 'INPROGRESS',
    is_sandbox_running: true,
    finished_at: null,
  })

  await agent.say('hi')
  await agent.end('SUCCEEDED', 'Said hi.')
  expect(await cp.client.runs.get(runId)).toMatchObject({ state: 'SUCCEEDED', status_message: { message: 'Said hi.' } })
  worker.complete(assignment)
  await cp.waitFor(runId, 'SUCCEEDED')

  expect(await cp.statesOf(runId)).toEqual(['QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS', 'SUCCEEDED'])
  const events = await cp.eventsOf(runId)
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1))
  expect(events.map(({ type }) => type)).toEqual([
    'run_state',
    'user_message',
    'run_state',
    'run_state',
    'run_state',
    'agent_message_chunk',
    'run_state',
  ])
})

test('each kind of outcome is written once, with its code and its sentence', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ maxConcurrentTasks: 0 })
  const outcomes = [
    ['SUCCEEDED', undefined, undefined],
    ['FAILED', 'setup_command_failed', 'environment_setup_failed'],
    ['ERROR', 'spool_full', 'internal_error'],
    ['ERROR', 'budget_exceeded', 'budget_exceeded'],
    ['ERROR', 'code_of_a_newer_agent', 'internal_error'],
    ['BLOCKED', undefined, undefined],
  ] as const
  for (const [outcome, code, shown] of outcomes) {
    const runId = await cp.createRun()
    const assignment = await worker.claimNext()
    const agent = cp.agentFor(assignment)
    await agent.hello()
    await agent.end(outcome, 'because', code)
    worker.complete(assignment)
    const run = await cp.waitFor(runId, outcome)
    // Only what the platform's code does not say already, and what the registry explains.
    const reason = code === 'setup_command_failed' || code === 'spool_full' ? { failure_reason: code } : {}
    const said = { ...(shown ? { error_code: shown } : {}), ...reason }
    expect(run.status_message).toEqual({ message: 'because', ...said })
    const end = (await cp.eventsOf(runId)).findLast((event) => event.type === 'run_state')
    expect(end?.data).toEqual({ state: outcome, message: 'because', ...said })
    expect((await cp.client.runs.executions(runId)).executions).toMatchObject([{ failure_reason: null, ...reason }])
    expect(await cp.client.runs.why(runId)).toMatchObject({ failure_reason: null, ...reason })
    expect(run.finished_at === null).toBe(outcome === 'BLOCKED')
    expect((await cp.statesOf(runId)).at(-1)).toBe(outcome)
  }
})

test('a hello that overtakes its claim starts the run all the same', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  const assignment = await worker.nextAssignment()
  await cp.agentFor(assignment).hello()
  worker.claim(assignment)
  expect(await cp.statesOf(runId)).toEqual(['QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS'])
})

test('the executions of a run tell its way as a waterfall', async () => {
  await using cp = await startControlPlane()
  const { agent, worker, assignment, runId } = await cp.startAgent()
  const { task_id, execution_id } = assignment
  const step = { task_id, execution_id, step: 'worker_setup' } as const
  worker.send({ type: 'task_step', data: { ...step, status: 'started' } })
  worker.send({ type: 'task_step', data: { ...step, status: 'completed', duration_ms: 12 } })
  await agent.send(
    { type: 'setup_step', data: { step: 'clone', status: 'started', title: 'Clone a/b' } },
    { type: 'setup_step', data: { step: 'clone', status: 'failed', title: 'Clone a/b', duration_ms: 34 } },
    { type: 'setup_step', data: { step: 'harness', status: 'completed', duration_ms: 5 } },
  )
  await agent.end('FAILED', 'no such repository')
  worker.complete(assignment)
  const { executions } = await until(
    () => cp.client.runs.executions(runId),
    (answer) => answer.executions[0]?.state === 'ended',
  )
  expect(executions).toHaveLength(1)
  const [execution] = executions
  expect(execution).toMatchObject({ execution_id, worker: 'w1', outcome: 'FAILED', unreachable: false })
  expect(execution?.ended_at).not.toBeNull()
  expect(execution?.waterfall.map(({ step, status }) => [step, status]).sort()).toEqual([
    ['Clone a/b', 'failed'],
    ['harness', 'completed'],
    ['hello', 'completed'],
    ['offer', 'completed'],
    ['worker_setup', 'completed'],
  ])
  expect(execution?.waterfall.find((row) => row.step === 'Clone a/b')?.duration_ms).toBe(34)
})

test('why says what a run waits for, and why it ended', async () => {
  await using cp = await startControlPlane()
  const first = await cp.createRun({ config: { worker_host: 'W1' } })
  const second = await cp.createRun({ config: { worker_host: 'W1' } })
  expect(await cp.client.runs.why(second)).toMatchObject({
    summary: 'Waiting for worker W1, which is not connected. No worker is connected.',
    place_in_queue: 2,
    workers: [],
  })
  await cp.connectWorker({ workerId: 'w1' })
  const why = await until(
    () => cp.client.runs.why(first),
    (answer) => answer.workers.length === 1,
  )
  expect(why).toMatchObject({
    summary: 'Waiting for worker W1, which is not connected. Connected: w1.',
    place_in_queue: 1,
    workers: [{ worker_id: 'w1', reason: 'the run names W1: ids are case-sensitive' }],
  })
  await cp.client.runs.cancel(first)
  expect(await cp.client.runs.why(first)).toMatchObject({
    state: 'CANCELLED',
    summary: 'Cancelled by user.',
    place_in_queue: null,
    workers: [],
  })
})
