import type { StartLocalRunResponse, TaskAssignment } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { TestAgent } from './support/test-agent.ts'

const terminalStates = async (cp: ControlPlane, runId: string) =>
  (await cp.statesOf(runId)).filter((state) => ['SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED'].includes(state))

/** How each turn ended, as readers of the conversation see it. */
const outcomesOf = async (cp: ControlPlane, runId: string) =>
  (await cp.db.query<{ outcome: string }>('select outcome from turns where run_id = $1 order by number', [runId])).map(
    ({ outcome }) => outcome,
  )

test('a queued run is cancelled at once, and cancelling twice is fine', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  expect(await cp.client.runs.cancel(runId)).toBe(runId)
  expect(await cp.client.runs.get(runId)).toMatchObject({
    state: 'CANCELLED',
    status_message: { message: 'Cancelled by user.' },
  })
  expect(await cp.client.runs.cancel(runId)).toBe(runId)
  expect((await cp.request('POST', `/api/v1/agent/tasks/${runId}/cancel`)).status).toBe(200)
  expect(await terminalStates(cp, runId)).toEqual(['CANCELLED'])
  const worker = await cp.connectWorker()
  const next = await cp.createRun()
  expect((await worker.nextAssignment()).task_id).toBe(next)
})

test('an offered run is cancelled at once; the claim that comes then is told so and its slot is free', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  const assignment = await worker.nextAssignment()
  await cp.client.runs.cancel(runId)
  expect((await cp.client.runs.get(runId)).state).toBe('CANCELLED')
  worker.claim(assignment)
  expect(await worker.superseded.next()).toEqual({ task_id: runId, execution_id: assignment.execution_id })
  await expect(cp.agentFor(assignment).hello()).rejects.toMatchObject({
    problem: { code: 'run_cancelled_before_start' },
  })
  const next = await cp.createRun()
  expect((await worker.nextAssignment()).task_id).toBe(next)
})

test('a claimed run whose agent said nothing yet is cancelled through its worker', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  const assignment = await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await cp.client.runs.cancel(runId)
  expect(await cp.client.runs.get(runId)).toMatchObject({
    state: 'CLAIMED',
    status_message: { message: 'Cancelling: waiting for the agent to stop.' },
  })
  expect(await worker.cancellations.next()).toEqual({ task_id: runId, execution_id: assignment.execution_id })
  expect(await cp.client.runs.cancel(runId)).toBe(runId)
  worker.fail(assignment, { failure_reason: 'task_cancelled', task_state: 'CANCELLED' })
  await cp.waitFor(runId, 'CANCELLED')
  expect(await terminalStates(cp, runId)).toEqual(['CANCELLED'])
})

test('a cancel that was asked for before the hello reaches the agent with it', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  const assignment = await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await cp.client.runs.cancel(runId)
  const agent = cp.agentFor(assignment)
  await agent.hello()
  expect(await agent.nextCommand()).toMatchObject({ type: 'cancel', payload: { reason: 'Cancelled by user.' } })
})

const startLocal = (cp: ControlPlane, conversation_id?: string) =>
  cp.client.runs.startLocal({ prompt: 'do it', host: 'laptop', ...(conversation_id && { conversation_id }) })

const localAgent = (cp: ControlPlane, started: StartLocalRunResponse) =>
  new TestAgent(cp.url, { ...started, task_id: started.run_id } as unknown as TaskAssignment)

test('a cancel before the hello of a local agent ends the run at once, and the agent that says hello then is turned away', async () => {
  await using cp = await startControlPlane()
  const started = await startLocal(cp)
  const { run_id: runId } = started
  await cp.client.runs.followUp(runId, { message: 'and this' })
  await cp.client.runs.cancel(runId)
  expect(await cp.client.runs.get(runId)).toMatchObject({ state: 'CANCELLED', is_sandbox_running: false })
  const turns = await cp.db.query('select outcome from turns where run_id = $1', [runId])
  expect(turns).toEqual([{ outcome: 'CANCELLED' }, { outcome: 'CANCELLED' }])
  const { executions } = await cp.client.runs.executions(runId)
  expect(executions).toMatchObject([{ state: 'ended', message: 'The run was cancelled.' }])
  await cp.client.runs.cancel(runId)
  await expect(localAgent(cp, started).hello()).rejects.toMatchObject({
    problem: { code: 'run_cancelled_before_start', status: 410, detail: expect.stringContaining(runId) },
  })
  // Its conversation is free again.
  expect((await startLocal(cp, started.conversation_id)).state).toBe('CLAIMED')
})

test('of a cancel and a hello at the same time, one is first and the other one hears of it', async () => {
  await using cp = await startControlPlane()
  for (let round = 0; round < 10; round++) {
    const started = await startLocal(cp)
    const agent = localAgent(cp, started)
    const [hello] = await Promise.allSettled([agent.hello(), cp.client.runs.cancel(started.run_id)])
    if (hello.status === 'fulfilled') {
      expect(await agent.nextCommand()).toMatchObject({ type: 'cancel' })
      await agent.end('CANCELLED')
      await agent.nextTurn(true)
    } else expect(hello.reason).toMatchObject({ problem: { code: 'run_cancelled_before_start' } })
    await cp.waitFor(started.run_id, 'CANCELLED')
  }
})

test('an agent at work is asked first; it ends politely and its worker hears nothing', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  const command = agent.nextCommand()
  await cp.client.runs.cancel(runId)
  expect(await command).toMatchObject({ type: 'cancel' })
  await agent.end('CANCELLED', 'stopped')
  expect((await cp.client.runs.get(runId)).state).toBe('CANCELLED')
  worker.complete(assignment, { task_state: 'CANCELLED' })
  await until(
    () => cp.client.runs.get(runId),
    (run) => !run.is_sandbox_running,
  )
  expect(worker.cancellations.items).toEqual([])
  expect(await terminalStates(cp, runId)).toEqual(['CANCELLED'])
})

test('a command is delivered until it is acknowledged, with the same id', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await cp.client.runs.cancel(runId)
  await cp.client.runs.cancel(runId)
  const seen: string[] = []
  for (let connection = 0; connection < 2; connection++)
    for await (const { id, event } of agent.commandEvents()) {
      seen.push(`${event} ${id}`)
      break
    }
  expect(new Set(seen).size).toBe(1)
  await agent.ack(seen[0]?.split(' ')[1] ?? '')
  const [row] = await cp.db.query<{ open: number }>('select count(*)::int as open from commands where acked_at is null')
  expect(row?.open).toBe(0)
})

test('an agent that does not stop is ended by its worker after 10 s', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await cp.client.runs.cancel(runId)
  await agent.renew()
  await cp.advanceDatabaseClock({ seconds: 9 })
  await agent.renew()
  expect(worker.cancellations.items).toEqual([])
  await cp.advanceDatabaseClock({ seconds: 2 })
  expect(await worker.cancellations.next()).toMatchObject({ task_id: runId })
  worker.fail(assignment, { exit_code: 137, failure_reason: 'agent_invocation' })
  expect((await cp.waitFor(runId, 'CANCELLED')).status_message?.message).toBe('Cancelled by user.')
  expect(await terminalStates(cp, runId)).toEqual(['CANCELLED'])
})

test('its worker hears of it when the time is over, not with a later look', async () => {
  // Looks are two seconds apart, so the next one would come after four.
  await using cp = await startControlPlane({ env: { OZ_CANCEL_GRACE: '2500ms' } })
  const { runId, worker } = await cp.startAgent()
  const askedAt = performance.now()
  await cp.client.runs.cancel(runId)
  await worker.cancellations.next()
  const tookMs = performance.now() - askedAt
  expect(tookMs).toBeGreaterThanOrEqual(2_400)
  expect(tookMs).toBeLessThan(3_500)
})

test('a cancel that a worker does not heed is sent again, until the agent’s process has ended', async () => {
  await using cp = await startControlPlane()
  const { runId, worker, assignment } = await cp.startAgent()
  await cp.client.runs.cancel(runId)
  for (const seconds of [11, 16, 16]) {
    await cp.advanceDatabaseClock({ seconds })
    expect(await worker.cancellations.next()).toMatchObject({ task_id: runId })
  }
  worker.finish(assignment)
  await until(async () => (await cp.db.query('select from executions where finishing_at is not null')).length === 1)
  await cp.advanceDatabaseClock({ seconds: 60 })
  worker.complete(assignment, { task_state: 'CANCELLED' })
  await cp.waitFor(runId, 'CANCELLED')
  expect(worker.cancellations.waiting).toBe(0)
})

test('two hundred cancels at once each reach their worker', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker({ maxConcurrentTasks: 0 })
  const runs = await Promise.all(Array.from({ length: 200 }, () => cp.createRun()))
  const assignments: TaskAssignment[] = []
  while (assignments.length < runs.length) assignments.push(await worker.claimNext())
  await cp.waitFor(assignments.at(-1)?.task_id ?? '', 'CLAIMED', 40_000)
  await Promise.all(runs.map((runId) => cp.client.runs.cancel(runId)))
  await until(() => worker.cancellations.items.length + worker.superseded.items.length >= 200, Boolean, {
    timeoutMs: 40_000,
  })
  const told = [...worker.cancellations.items, ...worker.superseded.items].map(({ task_id }) => task_id)
  expect(new Set(told)).toEqual(new Set(runs))
  for (const assignment of assignments) worker.fail(assignment, { failure_reason: 'task_cancelled' })
  for (const runId of runs) await cp.waitFor(runId, 'CANCELLED')
})

test('an outcome that the agent reached before it heard of the cancel stands', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await cp.client.runs.cancel(runId)
  await agent.end('SUCCEEDED', 'was quicker')
  worker.complete(assignment)
  await until(
    () => cp.client.runs.get(runId),
    (run) => !run.is_sandbox_running,
  )
  expect((await cp.client.runs.get(runId)).state).toBe('SUCCEEDED')
  await expect(cp.client.runs.cancel(runId)).rejects.toMatchObject({
    problem: { code: 'run_not_cancellable', status: 400 },
  })
  expect(await terminalStates(cp, runId)).toEqual(['SUCCEEDED'])
})

test('what waited behind an outcome that was quicker than the cancel is not begun', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await cp.client.runs.followUp(runId, { message: 'two' })
  await cp.client.runs.cancel(runId)
  await agent.end('SUCCEEDED', 'was quicker')
  expect(await cp.client.runs.get(runId)).toMatchObject({
    state: 'SUCCEEDED',
    status_message: { message: 'was quicker' },
  })
  expect(await agent.nextTurn(true)).toEqual({ turn: null })
  expect(await terminalStates(cp, runId)).toEqual(['SUCCEEDED'])
  expect(await outcomesOf(cp, runId)).toEqual(['SUCCEEDED', 'CANCELLED'])
})

test('the log says how many messages a cancel drops, before it says that the run is cancelled', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const taken = await cp.client.runs.followUp(runId, { message: 'taken up', mode: 'steer' })
  await cp.client.runs.followUp(runId, { message: 'not taken up', mode: 'steer' })
  for (const message of ['two', 'three']) await cp.client.runs.followUp(runId, { message })
  await cp.client.runs.cancel(runId)
  await agent.send({
    type: 'turn_outcome',
    data: { turn_id: agent.turnId, outcome: 'CANCELLED', message: 'stopped', taken_message_ids: [taken.message_id] },
  })
  const events = await cp.eventsOf(runId)
  expect(events.slice(-2)).toMatchObject([
    {
      type: 'notice',
      data: {
        level: 'info',
        text: 'The cancel drops 3 messages that the agent had not taken up. Cancelled before it began: turns 2, 3.',
      },
    },
    { type: 'run_state', data: { state: 'CANCELLED', message: 'stopped' } },
  ])
  expect(await outcomesOf(cp, runId)).toEqual(['CANCELLED', 'CANCELLED', 'CANCELLED'])
})

test('a queued run that is cancelled says which messages it drops; one without any says nothing', async () => {
  await using cp = await startControlPlane()
  const [asked, plain] = [await cp.createRun(), await cp.createRun()]
  await cp.client.runs.followUp(asked, { message: 'two' })
  await cp.client.runs.cancel(asked)
  await cp.client.runs.cancel(plain)
  const notices = async (runId: string) =>
    (await cp.eventsOf(runId)).flatMap((event) => (event.type === 'notice' ? [event.data.text] : []))
  expect(await notices(asked)).toEqual([
    'The cancel drops 1 message that the agent had not taken up. Cancelled before it began: turn 2.',
  ])
  expect(await notices(plain)).toEqual([])
})

test.each(['SUCCEEDED', 'FAILED', 'ERROR'] as const)('a run that ended as %s cannot be cancelled', async (outcome) => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end(outcome)
  await expect(cp.client.runs.cancel(runId)).rejects.toMatchObject({
    problem: {
      code: 'run_not_cancellable',
      status: 400,
      detail: expect.stringContaining(`${runId} has already ended as ${outcome}`),
    },
  })
})

test('a blocked run without an agent is cancelled at once', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.end('BLOCKED', 'Which one?')
  worker.complete(assignment)
  await until(
    () => cp.client.runs.get(runId),
    (run) => !run.is_sandbox_running,
  )
  expect((await cp.client.runs.get(runId)).state).toBe('BLOCKED')
  await cp.client.runs.cancel(runId)
  expect((await cp.client.runs.get(runId)).state).toBe('CANCELLED')
  expect(await cp.statesOf(runId)).toEqual(['QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS', 'BLOCKED', 'CANCELLED'])
  expect(await cp.client.runs.cancel(runId)).toBe(runId)
})

test('a blocked run whose agent waits is cancelled when that agent has ended', async () => {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  await agent.end('BLOCKED', 'Which one?')
  await agent.nextTurn()
  await cp.client.runs.cancel(runId)
  expect(await agent.nextCommand()).toMatchObject({ type: 'cancel' })
  worker.complete(assignment)
  await cp.waitFor(runId, 'CANCELLED')
})

test('a blocked run whose agent is lost after the cancel is cancelled too', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await agent.end('BLOCKED', 'Which one?')
  await cp.client.runs.cancel(runId)
  await cp.advanceDatabaseClock({ seconds: 14 * 60 })
  await cp.waitFor(runId, 'CANCELLED')
})

test('a worker that is away hears of the cancel when it comes back', async () => {
  await using cp = await startControlPlane()
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  const { task_id, execution_id } = await worker.claimNext()
  await cp.waitFor(runId, 'CLAIMED')
  await worker.disconnect()
  await cp.client.runs.cancel(runId)
  expect((await cp.client.runs.get(runId)).state).toBe('CLAIMED')
  const back = await cp.connectWorker({ running: [{ task_id, execution_id }] })
  expect(await back.cancellations.next()).toEqual({ task_id, execution_id })
  // That one was lost with the connection: it is sent again on the next.
  await back.disconnect()
  const again = await cp.connectWorker({ running: [{ task_id, execution_id }] })
  expect(await again.cancellations.next()).toEqual({ task_id, execution_id })
  again.complete({ task_id, execution_id }, { task_state: 'CANCELLED' })
  await cp.waitFor(runId, 'CANCELLED')
})

test('a cancelled run that nobody answers for any more ends with its lease', async () => {
  await using cp = await startControlPlane()
  const { runId, worker } = await cp.startAgent()
  await worker.disconnect()
  await cp.client.runs.cancel(runId)
  await cp.advanceDatabaseClock({ seconds: 14 * 60 })
  await cp.waitFor(runId, 'CANCELLED')
  expect(await terminalStates(cp, runId)).toEqual(['CANCELLED'])
})

test('cancel is in the audit log with who asked for it', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun()
  await cp.client.runs.cancel(runId)
  const { uid } = await cp.client.whoami()
  const rows = await cp.db.query('select actor, action, target from audit_events order by id')
  expect(rows).toEqual([
    { actor: `user:${uid}`, action: 'run.create', target: `run:${runId}` },
    { actor: `user:${uid}`, action: 'run.cancel', target: `run:${runId}` },
  ])
})
