import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'

test('why names the question of a run that is blocked, and how to answer it', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end('BLOCKED', 'Which of the two?')
  expect(await cp.client.runs.why(runId)).toMatchObject({
    state: 'BLOCKED',
    summary: 'The agent asks: Which of the two?',
    next_step: `Answer with \`oz run follow-up ${runId} "answer"\`.`,
  })
  await agent.nextTurn()
  await cp.client.runs.cancel(runId)
  expect(await cp.client.runs.why(runId)).toMatchObject({
    summary: 'Cancelling: waiting for the agent to stop.',
    next_step: expect.stringContaining('The agent is stopping'),
  })
})

test('why says that an agent at work is not heard of, and when its attempt is given up', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.renew()
  expect((await cp.client.runs.why(runId)).next_step).toBe('Nothing: the run is at work.')
  await cp.advanceDatabaseClock({ seconds: 60 })
  const why = await cp.client.runs.why(runId)
  expect(why.summary).toMatch(/^The agent is at work on test\. Its agent on worker w1 was last heard of 6\d s ago\.$/)
  expect(why.next_step).toMatch(
    /^See whether worker w1 is running and reaches this server\. Unless it is heard of within 12 min, this attempt is given up/,
  )
})

test('why says that a message waits for an agent at rest that is not heard of, and until when', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end('SUCCEEDED')
  await agent.nextTurn()
  await cp.advanceDatabaseClock({ seconds: 30 })
  expect(await cp.client.runs.why(runId)).toMatchObject({
    summary: expect.stringMatching(/^done Its agent on worker w1 was last heard of 3\d s ago\.$/),
    next_step: expect.stringMatching(/^Nothing waits/),
  })
  await cp.client.runs.followUp(runId, { message: 'and now this' })
  // Nobody claims that it has the message already.
  const message = 'The agent is told of the next message.'
  expect((await cp.client.runs.get(runId)).status_message).toEqual({ message })
  const why = await cp.client.runs.why(runId)
  expect(why.summary).toContain(`${message} Its agent on worker w1 was last heard of`)
  expect(why.next_step).toMatch(/^Nothing: unless it is heard of within \d\d s, another agent takes the message\.$/)

  await agent.nextTurn()
  expect((await cp.client.runs.get(runId)).status_message?.message).toBe('The agent goes on with the next message.')
})

test('a silent run that has no attempt left is not said to be tried again', async () => {
  await using cp = await startControlPlane()
  const { runId, worker } = await cp.startAgent({ retry: { max_attempts: 1 } })
  await worker.disconnect()
  await cp.advanceDatabaseClock({ seconds: 60 })
  expect((await cp.client.runs.why(runId)).next_step).toMatch(/, the run ends as ERROR: it has no attempt left\.$/)
})

test('why names the worker whose log says more of a run that failed', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment } = await cp.startAgent({ retry: { max_attempts: 1 } })
  worker.fail(assignment, { failure_reason: 'agent_invocation', message: 'The agent was ended by signal 9.' })
  await cp.waitFor(runId, 'ERROR')
  expect((await cp.client.runs.why(runId)).next_step).toBe(
    'Nothing waits. Look at the log with `oz run watch`; the log of worker w1, which had the last attempt, says more.',
  )
})

test('why says what a worker answered that does not take the run', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ workerId: 'w1' })
  const runId = await cp.createRun()
  const words =
    'No space is left for a new task in /var/lib/oz (0 KiB free). Free some space, or choose another folder.'
  worker.reject(await worker.nextAssignment(), words)
  await cp.waitFor(runId, 'QUEUED')
  expect((await cp.client.runs.why(runId)).workers).toMatchObject([
    { worker_id: 'w1', reason: `Worker w1 did not take it: ${words}` },
  ])
})
