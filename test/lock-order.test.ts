import pg from 'pg'
import { expect, test } from 'vitest'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { findExecution, findRunAndExecutionForUpdate } from '../packages/server/src/store/executions.ts'
import { findRun } from '../packages/server/src/store/runs.ts'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

/** An agent's batch locks its execution and then the log: whoever has the log while it waits for the execution waits for ever. */
test.each([
  ['steers the turn at work', 'steer', false],
  ['wakes an agent at rest', 'queue', true],
] as const)('a message that %s has not locked the log while it waits for the execution', async (_, mode, isAtRest) => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  if (isAtRest) {
    await agent.end('SUCCEEDED')
    await agent.nextTurn()
  }
  const other = new pg.Client(cp.database.url)
  await other.connect()
  try {
    await other.query('begin')
    await other.query('select from executions where run_id = $1 for no key update', [runId])
    const said = cp.client.runs.followUp(runId, { message: 'more', mode })
    await until(async () => {
      const waiting = await cp.db.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      )
      return waiting.length > 0
    })
    const log = await other.query('select from session_logs where run_id = $1 for update nowait', [runId])
    expect(log.rowCount).toBe(1)
    await other.query('commit')
    expect((await said).run_id).toBe(runId)
  } finally {
    await other.end()
  }
})

test('hellos and what comes late wait for one another over the runs of a conversation', async () => {
  await using cp = await startControlPlane()
  const { agent, worker, assignment, runId } = await cp.startAgent()
  worker.fail(assignment, { failure_reason: 'container_exit', exit_code: 1 })
  await cp.waitFor(runId, 'ERROR')
  const { conversation_id } = await cp.client.runs.get(runId)
  await cp.createRun({ conversation_id: conversation_id ?? '' })
  const next = cp.agentFor(await worker.claimNext())
  const other = new pg.Client(cp.database.url)
  await other.connect()
  try {
    await other.query('begin')
    await other.query('select from conversations where id = $1 for no key update', [conversation_id])
    const both = [next.hello(), agent.checkpoint(1, 'late')]
    await until(async () => {
      const waiting = await cp.db.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
            and query like 'select from conversations%'`,
      )
      return waiting.length === both.length
    })
    await other.query('commit')
    await Promise.all(both)
  } finally {
    await other.end()
  }
})

test('run and execution, locked by one statement, are what they are once both locks are had, and the run’s comes first', async () => {
  await using cp = await startControlPlane()
  const { runId, assignment } = await cp.startAgent()
  const executionId = assignment.execution_id
  const db = openDatabase({ connectionString: cp.database.url }, () => {})
  const other = new pg.Client(cp.database.url)
  await other.connect()
  try {
    await other.query('begin')
    await other.query('select from runs where id = $1 for no key update', [runId])
    const both = db.transaction((tx) => findRunAndExecutionForUpdate(tx, runId, executionId))
    await until(async () => {
      const waiting = await cp.db.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      )
      return waiting.length > 0
    })
    await other.query('select from executions where id = $1 for no key update nowait', [executionId])
    await other.query("update executions set state = 'idle' where id = $1", [executionId])
    await other.query("update runs set state = 'SUCCEEDED', ended_at = now(), metadata = $2 where id = $1", [
      runId,
      { a: 'é\n"' },
    ])
    await other.query('commit')
    const locked = await both
    expect(locked?.execution.state).toBe('idle')
    expect(locked?.run).toMatchObject({ state: 'SUCCEEDED', endedAt: expect.any(Date), metadata: { a: 'é\n"' } })
    // Read as JSON, and no different from any other way of reading it.
    expect(locked).toEqual({ run: await findRun(db, runId), execution: await findExecution(db, executionId) })
    const otherRun = await cp.createRun()
    expect(await db.transaction((tx) => findRunAndExecutionForUpdate(tx, otherRun, executionId))).toBeUndefined()
  } finally {
    await other.end()
    await db.close()
  }
})
