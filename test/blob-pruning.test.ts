import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { savedRepository } from './support/saved-repository.ts'

test('blobs that nothing refers to are removed a day after their execution', async () => {
  await using cp = await startControlPlane()
  const blobIds = async () =>
    (await cp.db.query<{ id: string }>('select id from blobs order by id')).map(({ id }) => id).sort()

  const { agent, worker, assignment } = await cp.startAgent()
  const names = ['bundle', 'diff', 'output', 'file', 'invalid', 'orphan', 'superseded'] as const
  const ids = {} as Record<(typeof names)[number], string>
  for (const name of names) ids[name] = await agent.putBlob(name)
  await agent.checkpoint(1, 'memory')
  const repositories = [savedRepository(ids.bundle, ids.diff)]
  await agent.send(
    { type: 'workspace_saved', data: { repositories, left_out: [] } },
    { type: 'tool_call_update', data: { toolCallId: 't', status: 'completed', blob_id: ids.output } },
    { type: 'artifact', data: { artifact_type: 'FILE', nested: { blob_id: ids.file.toUpperCase() } } },
  )
  await agent.sendBatch([{ n: ++agent.n, type: 'no_such_type', data: { blob_id: ids.invalid } }])
  await agent.end('SUCCEEDED')
  await agent.nextTurn(true)
  worker.complete(assignment)
  const kept = (await blobIds()).filter((id) => id !== ids.orphan && id !== ids.superseded)
  expect(kept).toHaveLength(6)

  // One that is at work may still name what it sent.
  await cp.advanceDatabaseClock({ seconds: 25 * 3600 })
  await cp.createRun()
  const atWork = cp.agentFor(await worker.claimNext())
  await atWork.hello()
  const unnamed = await atWork.putBlob('to be named')
  // The rare rounds of tidying come first after a start.
  await cp.restart()
  await until(async () => !(await blobIds()).includes(ids.orphan))
  expect(await blobIds()).toEqual([...kept, unnamed].sort())
  const [row] = await cp.db.query<{ strays: number }>(
    'select count(*)::int as strays from blob_chunks where blob_id not in (select id from blobs)',
  )
  expect(row?.strays).toBe(0)
  // Not read again: what is left of an execution that is over was found to be needed.
  const marked = await cp.db.query<{ id: string }>('select id from blobs where is_kept')
  expect(marked.map(({ id }) => id).sort()).toEqual(kept)
})

test('an older workspace is removed without reading through all blobs', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const others = 20_000
  await cp.db.query(
    `insert into blobs (id, run_id, content_type, size_bytes, sha256)
     select gen_random_uuid(), $1, 'text/plain', 1, '\\x01' from generate_series(1, $2)`,
    [runId, others],
  )
  await cp.db.query('analyze blobs')
  const statistics = async () => {
    const [row] = await cp.db.query<{ read: number; removed: number }>(
      `select seq_tup_read::int as read, n_tup_del::int as removed from pg_stat_user_tables where relname = 'blobs'`,
    )
    return row ?? { read: 0, removed: 0 }
  }
  const save = async (name: string) => {
    const [bundle, diff] = [await agent.putBlob(`bundle ${name}`), await agent.putBlob(`diff ${name}`)]
    await agent.send({ type: 'workspace_saved', data: { repositories: [savedRepository(bundle, diff)], left_out: [] } })
  }
  await save('1')
  const before = await statistics()
  await save('2')
  const after = await until(statistics, ({ removed }) => removed === 2, { timeoutMs: 30_000, everyMs: 200 })
  expect(after.read - before.read).toBeLessThan(others)
})
