import pino from 'pino'
import { expect, test } from 'vitest'
import type { Ctx } from '../packages/server/src/domain/context.ts'
import { createHints } from '../packages/server/src/hints.ts'
import { CommandStreams } from '../packages/server/src/sockets/agent-commands.ts'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

test('an agent hears of a cancel on another server, also where no hint comes through', async () => {
  await using cp = await startControlPlane({ useNotify: false })
  const other = await cp.addServer()
  const { assignment, runId } = await cp.startAgent()
  const agent = cp.agentFor(assignment, other.url)
  const heard = agent.nextCommand()
  await cp.client.runs.cancel(runId)
  expect(await heard).toMatchObject({ type: 'cancel' })
})

test('however many agents listen, one query looks for all of them; those that it finds nothing for ask nothing', async () => {
  await using cp = await startControlPlane()
  const executions: { id: string; runId: string }[] = []
  for (let i = 0; i < 3; i++) {
    const { assignment, runId } = await cp.startAgent()
    executions.push({ id: assignment.execution_id, runId })
  }
  const db = openDatabase({ connectionString: cp.database.url }, () => {})
  const looks: string[] = []
  const own: unknown[] = []
  const log = pino({ level: 'silent' })
  const ctx = {
    log,
    hints: createHints({ serverId: 'test', log, useNotify: false }),
    db: {
      ...db,
      query(text: string, values: unknown[]) {
        if (text.includes('unnest')) looks.push(text)
        else own.push(values[0])
        return db.query(text, values)
      },
    },
  } as unknown as Ctx
  const streams = new CommandStreams(ctx, { pollMs: 20 })
  const stopping = new AbortController()
  const frames = new Map(executions.map(({ id }) => [id, [] as string[]]))
  const reading = executions.map(async ({ id }) => {
    for await (const bytes of streams.view(id, stopping.signal)) frames.get(id)?.push(Buffer.from(bytes).toString())
  })
  try {
    await until(() => looks.length > 3)
    // Each looked once into its own inbox, in two queries, when it began.
    expect(own).toHaveLength(2 * executions.length)

    const [first, second, third] = executions
    await cp.db.query(
      `insert into commands (id, run_id, execution_id, type, payload)
       values (gen_random_uuid(), '${first?.runId}', '${first?.id}', 'interrupt', '{}')`,
    )
    await cp.db.query(`update executions set state = 'ended', ended_at = db_now() where id = '${second?.id}'`)
    await until(
      () =>
        frames
          .get(first?.id ?? '')
          ?.at(-1)
          ?.includes('event: interrupt') === true,
    )
    await reading[1]
    expect(frames.get(second?.id ?? '')?.at(-1)).toContain('event: stop')
    expect(own.filter((id) => id === third?.id)).toHaveLength(2)
  } finally {
    stopping.abort()
    await Promise.all(reading)
    await db.close()
  }
})
