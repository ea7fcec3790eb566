import { expect, test } from 'vitest'
import { backUp, restore } from './support/backups.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { TestAgent } from './support/test-agent.ts'
import { createTestDatabase } from './support/test-database.ts'
import type { TestWorkerOptions } from './support/test-worker.ts'

/** A run for a worker of its own, which is connected. */
async function offer(cp: ControlPlane, workerId: string, options: TestWorkerOptions = {}) {
  const worker = await cp.connectWorker({ workerId, ...options })
  const runId = await cp.createRun({ prompt: workerId, config: { worker_host: workerId, idle_timeout_minutes: 5 } })
  return { worker, runId, assignment: await worker.nextAssignment() }
}

async function begin(cp: ControlPlane, workerId: string, options: TestWorkerOptions = {}) {
  const { worker, runId, assignment } = await offer(cp, workerId, options)
  worker.claim(assignment)
  const agent = cp.agentFor(assignment)
  await agent.hello()
  await agent.checkpoint(1, `what ${workerId} knew`)
  return { worker, runId, assignment, agent }
}

/** One run in each state in which a backup may meet it. */
async function startAllKinds(cp: ControlPlane) {
  const queued = await cp.createRun({ config: { worker_host: 'nobody' } })
  const offered = await offer(cp, 'offered')
  const claimed = await offer(cp, 'claimed')
  claimed.worker.claim(claimed.assignment)
  await cp.waitFor(claimed.runId, 'CLAIMED')
  const working = await begin(cp, 'working')
  const asked = await begin(cp, 'asked')
  await cp.client.runs.followUp(asked.runId, { message: 'and then this' })
  const cancelled = await begin(cp, 'cancelled')
  await cp.client.runs.cancel(cancelled.runId)
  const resting = await begin(cp, 'resting')
  await resting.agent.end('SUCCEEDED')
  const woken = await begin(cp, 'woken')
  await woken.agent.end('SUCCEEDED')
  await cp.client.runs.followUp(woken.runId, { message: 'nobody has begun this' })
  const blocked = await begin(cp, 'blocked')
  await blocked.agent.end('BLOCKED', 'Left or right?')
  const lost = await begin(cp, 'lost', { answersGone: false })
  await cp.db.query(`update executions set lease_renewed_at = db_now() - interval '14 minutes' where run_id = $1`, [
    lost.runId,
  ])
  await lost.worker.superseded.next()
  const over = await begin(cp, 'over')
  await over.agent.end('FAILED')
  await over.agent.nextTurn(true)
  over.worker.complete(over.assignment)
  await until(
    () => cp.client.runs.get(over.runId),
    (run) => !run.is_sandbox_running,
  )
  return { queued, offered, claimed, working, asked, cancelled, resting, woken, blocked, lost, over }
}

async function restoredServer(cp: ControlPlane, requeue: boolean) {
  const { file, madeAt } = await backUp(cp)
  const database = await createTestDatabase({ isEmpty: true })
  const { runs } = await restore(cp, { file, target: database, requeue })
  const server = await cp.addServer({ databaseUrl: database.url })
  return {
    madeAt,
    runs,
    database,
    url: server.url,
    client: cp.clientFor(cp.adminKey, server.url),
    async [Symbol.asyncDispose]() {
      await server.stop()
      await database[Symbol.asyncDispose]()
    },
  }
}

const expected = {
  queued: 'QUEUED',
  offered: 'QUEUED',
  claimed: 'ERROR',
  working: 'ERROR',
  // Its turn has ended, and what was asked after it goes on.
  asked: 'QUEUED',
  cancelled: 'CANCELLED',
  resting: 'SUCCEEDED',
  woken: 'QUEUED',
  blocked: 'BLOCKED',
  // Waited for a worker that the new machine has never heard of.
  lost: 'QUEUED',
  over: 'FAILED',
}

test.each([false, true])(
  'each kind of run is where it can go on from after a restore (requeue: %s)',
  {
    timeout: 120_000,
  },
  async (requeue) => {
    await using cp = await startControlPlane()
    const kinds = await startAllKinds(cp)
    await using after = await restoredServer(cp, requeue)
    const states = Object.fromEntries(
      await Promise.all(
        Object.entries(kinds).map(async ([name, kind]) => {
          const { state } = await after.client.runs.get(typeof kind === 'string' ? kind : kind.runId)
          return [name, state]
        }),
      ),
    )
    expect(states).toEqual(requeue ? { ...expected, claimed: 'QUEUED', working: 'QUEUED' } : expected)
    expect(after.runs).toEqual(
      requeue ? { ended: 0, requeued: 5, cancelled: 1, queued: 7 } : { ended: 3, requeued: 2, cancelled: 1, queued: 5 },
    )
    expect(
      await after.database.query(`
      select 'live' as problem, id from executions where state in ('offered', 'claimed', 'running', 'idle') union all
      select 'open', run_id from turns join runs on runs.id = run_id
       where outcome is null and state in ('SUCCEEDED', 'FAILED', 'ERROR', 'BLOCKED', 'CANCELLED') union all
      select 'outcome', id from runs where state in ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED') and ended_at is null union all
      select 'waits', id from runs where awaits_gone is not null union all
      select 'log', run_id from session_logs join session_events using (run_id)
       group by run_id, last_seq having min(seq) <> 1 or max(seq) <> count(*) or max(seq) <> last_seq`),
    ).toEqual([])
    const terminal = await after.database.query(
      `select run_id, count(*) filter (where type = 'run_state' and data ->> 'state' in ('SUCCEEDED', 'FAILED', 'ERROR', 'CANCELLED', 'BLOCKED'))
            - (select count(*) from turns where turns.run_id = session_events.run_id and outcome is not null) as surplus
       from session_events group by run_id`,
    )
    expect(terminal.filter(({ surplus }) => surplus !== 0)).toEqual([])
  },
)

test('a run that was at work says why it has ended, and a follow-up goes on from its last checkpoint', {
  timeout: 60_000,
}, async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await begin(cp, 'w1')
  await using after = await restoredServer(cp, false)
  const run = await after.client.runs.get(runId)
  expect(run.state).toBe('ERROR')
  const { executions } = await after.client.runs.executions(runId)
  expect(executions).toMatchObject([{ state: 'lost', outcome: 'ERROR', failure_reason: 'restored' }])
  expect(run.status_message?.message).toMatch(/at work when the backup was made .* continue with a follow-up\.$/)
  expect(run.status_message?.message).toContain(after.madeAt)

  // The agent of the old machine, should it ever reach the new one: its words are kept, and it is told to stop.
  agent.moveTo(after.url)
  expect(await agent.say('late')).toMatchObject({ superseded: true })
  await agent.end('SUCCEEDED')
  expect((await after.client.runs.get(runId)).state).toBe('ERROR')

  await after.client.runs.followUp(runId, { message: 'go on' })
  const worker = await cp.connectWorker({ workerId: 'w1', serverUrl: after.url })
  const next = new TestAgent(after.url, await worker.claimNext())
  const { checkpoint, turn } = await next.hello()
  expect(turn.message).toBe('go on')
  const blob = await next.request(`/api/v1/agent-channel/blobs/${checkpoint?.blob_id}`)
  expect(await blob.text()).toBe('what w1 knew')
  await next.end('SUCCEEDED')
  expect((await after.client.runs.get(runId)).state).toBe('SUCCEEDED')
})

test('a worker that still performs a run of the old machine is told to end it', { timeout: 60_000 }, async () => {
  await using cp = await startControlPlane()
  const { assignment } = await begin(cp, 'w1')
  await using after = await restoredServer(cp, false)
  const { task_id, execution_id } = assignment
  const worker = await cp.connectWorker({
    workerId: 'w1',
    serverUrl: after.url,
    running: [{ task_id, execution_id }],
  })
  expect(await worker.superseded.next()).toMatchObject({ execution_id })
})

test('what was asked while the run was at work goes on by itself', { timeout: 60_000 }, async () => {
  await using cp = await startControlPlane()
  const { runId } = await begin(cp, 'w1')
  await cp.client.runs.followUp(runId, { message: 'second' })
  await using after = await restoredServer(cp, false)
  const worker = await cp.connectWorker({ workerId: 'w1', serverUrl: after.url })
  const agent = new TestAgent(after.url, await worker.claimNext())
  const { checkpoint, turn } = await agent.hello()
  expect([turn.message, turn.number, checkpoint?.step]).toEqual(['second', 2, 1])
})

test('a run on a machine of its own has nobody to go on with it: its conversation has', {
  timeout: 60_000,
}, async () => {
  await using cp = await startControlPlane()
  const created = await cp.request<{ run_id: string }>('POST', '/api/v1/agent/local-runs', {
    json: { prompt: 'here', host: 'laptop' },
  })
  expect(created.status).toBe(201)
  await using after = await restoredServer(cp, true)
  const run = await after.client.runs.get(created.body.run_id)
  expect(run.state).toBe('ERROR')
  expect(run.status_message?.message).toContain(`oz agent run --conversation ${run.conversation_id}`)
})
