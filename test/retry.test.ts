import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

test('a run with one attempt is not tried again', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun({ retry: { max_attempts: 1 } })
  worker.fail(await worker.claimNext(), { failure_reason: 'graceful_shutdown', exit_code: 143 })
  expect((await cp.waitFor(runId, 'ERROR')).status_message?.message).toBe('The worker was stopped while the task ran.')
})

test('a run with more attempts than its reason allows gets them, and a follow-up as many again', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun({ retry: { max_attempts: 5 } })
  for (let turn = 1; turn <= 2; turn++) {
    for (let attempt = 1; attempt <= 5; attempt++)
      worker.fail(await worker.claimNext(), { failure_reason: 'graceful_shutdown', exit_code: 143 })
    const run = await cp.waitFor(runId, 'ERROR')
    expect(run.status_message?.message).toBe('The worker was stopped while the task ran. It was tried 5 times.')
    if (turn === 1) await cp.client.runs.followUp(runId, { message: 'again' })
  }
  const { executions } = await cp.client.runs.executions(runId)
  // The first attempt at each turn is no retry; what was rejected in between is no attempt.
  expect(executions.map(({ retry_of }) => retry_of)).toEqual(
    executions.map((_, index) => (index % 5 === 0 ? null : executions[index - 1]?.execution_id)),
  )
  expect(executions.map(({ failure_reason }) => failure_reason)).toEqual(Array(10).fill('graceful_shutdown'))
})

test('a retry follows the last attempt, not an offer that was rejected', async () => {
  await using cp = await startControlPlane()
  const { worker, runId, assignment } = await cp.startAgent()
  worker.fail(assignment, { failure_reason: 'graceful_shutdown', exit_code: 143 })
  worker.reject(await worker.nextAssignment(), 'no room')
  await cp.waitFor(runId, 'QUEUED')
  await (await cp.connectWorker({ workerId: 'w2' })).claimNext()
  expect((await cp.client.runs.executions(runId)).executions.map(({ retry_of }) => retry_of)).toEqual([
    null,
    assignment.execution_id,
    assignment.execution_id,
  ])
})

test.each([0, 11, 1.5])('%s attempts are refused', async (max_attempts) => {
  await using cp = await startControlPlane()
  const answer = await cp.request('POST', '/api/v1/agent/runs', { json: { prompt: 'x', retry: { max_attempts } } })
  expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
})

test('the log says of each retry which attempt it is, of how many, why and when', async () => {
  await using cp = await startControlPlane()
  const { worker, runId, assignment } = await cp.startAgent()
  worker.fail(assignment, { failure_reason: 'agent_invocation', exit_code: 137, message: 'Killed.' })
  await cp.waitFor(runId, 'QUEUED')
  const moves = (await cp.eventsOf(runId)).flatMap((event) => (event.type === 'run_state' ? [event.data] : []))
  expect(moves.at(-1)).toEqual({
    state: 'QUEUED',
    failure_reason: 'agent_invocation',
    message: 'Attempt 2 of 3: agent_invocation, in 2 seconds. The agent could not be started, or was killed. Killed.',
  })
  await cp.advanceDatabaseClock({ seconds: 3 })
  await until(() => worker.assignments.waiting > 0)
})
