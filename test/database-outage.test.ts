import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { message } from './support/test-agent.ts'

/** The whole path on the embedded database, with a crash of it in the middle. */
test('the embedded database dies under load: requests are told to come again, and no acknowledged event is lost', async () => {
  await using cp = await startControlPlane({ isStopped: true })
  // No DATABASE_URL: this server brings its own.
  const server = await cp.addServer({ databaseUrl: '' })
  const client = cp.clientFor(cp.adminKey, server.url)
  const worker = await cp.connectWorker({ serverUrl: server.url })
  const { run_id } = await client.runs.create({ prompt: 'x' })
  const assignment = await worker.claimNext()
  const agent = cp.agentFor(assignment, server.url)
  await agent.hello()

  // What a library prints goes past the log.
  const printed = vi.spyOn(console, 'error')
  const viewing = (async () => {
    const seen: string[] = []
    for await (const { id, event } of cp.view(run_id, { serverUrl: server.url }))
      seen.push(event === 'end' ? 'end' : `${id}`)
    return seen
  })()

  const total = 600
  let acknowledged = 0
  const refusals: { code: string; retryable: boolean; status: number }[] = []
  const sending = (async () => {
    while (acknowledged < total) {
      const batch = Array.from({ length: 5 }, (_, i) => ({
        n: acknowledged + 1 + i,
        ...message(`${acknowledged + 1 + i}`),
      }))
      try {
        acknowledged = (await agent.sendBatch(batch.filter(({ n }) => n <= total))).acked_n
      } catch (error) {
        refusals.push((error as { problem: (typeof refusals)[0] }).problem)
        await sleep(20)
      }
    }
  })()
  await until(() => acknowledged > 100)
  const [pid] = readFileSync(join(server.dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')
  process.kill(Number(pid), 'SIGKILL')
  const notReady = await until(
    () => fetch(`${server.url}/readyz`),
    ({ status }) => status === 503,
  )
  expect(await notReady.json()).toMatchObject({ status: 'not ready', code: 'database_down' })
  expect((await fetch(`${server.url}/healthz`)).status).toBe(200)
  await until(async () => (await fetch(`${server.url}/readyz`)).status === 200, Boolean, {
    timeoutMs: 20_000,
    everyMs: 50,
  })
  await sending
  expect(refusals.length).toBeGreaterThan(0)
  for (const refusal of refusals) expect(refusal).toMatchObject({ code: 'database_down', status: 503, retryable: true })

  expect(printed).not.toHaveBeenCalled()
  printed.mockRestore()
  expect(cp.errors.splice(0)).toEqual([expect.stringContaining('PostgreSQL has ended by itself; starting it again')])

  await agent.sendBatch([
    { n: total + 1, type: 'turn_outcome', data: { turn_id: agent.turnId, outcome: 'SUCCEEDED', message: 'survived' } },
  ])
  worker.complete(assignment)
  const seen = await viewing
  expect(seen).toEqual([...Array.from({ length: total + 6 }, (_, i) => `${i + 1}`), 'end'])
  const words: string[] = []
  for (let since = 0, isComplete = false; !isComplete; ) {
    const page = await client.runs.events(run_id, { since, limit: 500 })
    for (const { type, data } of page.events)
      if (type === 'agent_message_chunk') words.push((data.content as { text: string }).text)
    since = page.next_since
    isComplete = page.is_complete
  }
  expect(words).toEqual(Array.from({ length: total }, (_, i) => `${i + 1}`))
})
