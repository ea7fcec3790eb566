import pino from 'pino'
import { expect, test } from 'vitest'
import type { Ctx } from '../packages/server/src/domain/context.ts'
import { createHints } from '../packages/server/src/hints.ts'
import { type Slot, startDispatcher } from '../packages/server/src/loops/dispatcher.ts'
import { openDatabase } from '../packages/server/src/store/database.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'

test('fifty idle workers cost one look together; a run is claimed for by the worker that it names alone', async () => {
  await using cp = await startControlPlane()
  const workerIds = Array.from({ length: 50 }, (_, i) => `w${i}`)
  await using watched = await watchDispatcher(cp, workerIds)
  await until(() => watched.statements.includes('look'))

  const runId = await cp.createRun({ config: { worker_host: 'w7' } })
  watched.hint('w7')
  await until(() => watched.sent.length === 1)
  expect(watched.sent).toEqual([{ runId, workerId: 'w7' }])

  const next = await cp.createRun({ config: { worker_host: 'w7' } })
  for (const workerId of workerIds) watched.free(workerId)
  await until(() => watched.sent.length === 2)
  expect(watched.sent[1]).toEqual({ runId: next, workerId: 'w7' })
  expect(watched.claims()).toEqual(['claim for w7', 'claim for w7'])

  // One that becomes free with nothing to do asks for itself only.
  watched.free('w9')
  await until(() => watched.claims().length > 2)
  expect(watched.claims()[2]).toBe('claim for w9')
  expect(watched.looks()).toBeLessThanOrEqual(watched.mostLooks(2))
})

test('a hint that names no worker asks one idle worker after the other until one finds nothing', async () => {
  await using cp = await startControlPlane()
  await using watched = await watchDispatcher(cp, ['w1', 'w2', 'w3', 'w4'])
  await until(() => watched.statements.includes('look'))
  await cp.createRun()
  watched.hint('')
  await until(() => watched.statements.at(-1) === 'look' && watched.claims().length > 0)
  expect(watched.claims()).toEqual(['claim for w1', 'claim for w2'])
  expect(watched.sent).toHaveLength(1)
})

test('a worker that may have nothing keeps no run from the others that may', async () => {
  await using cp = await startControlPlane()
  await using watched = await watchDispatcher(cp, ['w1', 'w2'])
  await until(() => watched.statements.includes('look'))
  // Stored, and this server has not heard of it yet.
  await cp.client.workers.drain('w1')
  const named = await cp.createRun({ config: { worker_host: 'w1' } })
  const runId = await cp.createRun()
  watched.hint('w1')
  watched.hint('')
  await until(() => watched.sent.length > 0)
  expect(watched.sent).toEqual([{ runId, workerId: 'w2' }])
  expect((await cp.client.runs.get(named)).state).toBe('QUEUED')
  // What waits for it is claimed for once a poll, and not over and over.
  expect(watched.claims().length).toBeLessThanOrEqual(watched.mostLooks(3))
})

test('what one hint stands for is all offered, in order, also when hints for others come meanwhile', async () => {
  await using cp = await startControlPlane()
  const runs: string[] = []
  for (let i = 0; i < 10; i++) runs.push(await cp.createRun({ config: { worker_host: 'w1' } }))
  await using watched = await watchDispatcher(cp, ['w1', 'w2'], {
    slotsEach: 10,
    areFullAtFirst: true,
    onSend: () => watched.hint('elsewhere'),
  })
  watched.end('w1')
  watched.hint('w1')
  await until(() => watched.sent.length === 10)
  expect(watched.sent.map(({ runId }) => runId)).toEqual(runs)
  expect(watched.statements.slice(0, 10)).toEqual(Array(10).fill('claim for w1'))
})

/** A dispatcher of its own on the database of a control plane that no worker is connected to, and the statements that it makes. */
async function watchDispatcher(
  cp: ControlPlane,
  workerIds: string[],
  {
    slotsEach = 1,
    areFullAtFirst = false,
    onSend = () => {},
  }: { slotsEach?: number; areFullAtFirst?: boolean; onSend?: () => void } = {},
) {
  const [team] = await cp.db.query<{ id: string }>('select id from teams')
  const teamId = team?.id ?? ''
  const db = openDatabase({ connectionString: cp.database.url }, () => {})
  const statements: string[] = []
  const sent: { runId: string; workerId: string }[] = []
  const began = performance.now()
  const slots = workerIds.map((workerId): Slot => {
    const slot: Slot = {
      ...{
        id: crypto.randomUUID(),
        teamId,
        workerId,
        speaksOurs: true,
        instance: null,
        active: areFullAtFirst ? slotsEach : 0,
      },
      hasFreeSlot: () => slot.active < slotsEach,
      isFull: () => false,
      send({ runId }) {
        slot.active++
        sent.push({ runId, workerId })
        onSend()
        return true
      },
    }
    return slot
  })
  function end(workerId: string): void {
    for (const slot of slots) if (slot.workerId === workerId) slot.active = 0
  }
  const log = pino({ level: 'silent' })
  const hints = createHints({ serverId: 'test', log, useNotify: false })
  const ctx = {
    db: {
      ...db,
      query(text: string, values?: unknown[]) {
        statements.push(text.startsWith('with named as') ? `claim for ${values?.[1]}` : 'look')
        return db.query(text, values)
      },
    },
    hints,
    log,
    config: { lease: { outageMs: 10_000, lateMs: 900_000 } },
  } as unknown as Ctx
  const stopping = new AbortController()
  const dispatcher = startDispatcher(ctx, () => slots, stopping.signal)
  return {
    statements,
    sent,
    claims: () => statements.filter((statement) => statement !== 'look'),
    looks: () => statements.filter((statement) => statement === 'look').length,
    /** So many, and one for each poll that a slow machine has had the time for. */
    mostLooks: (looks: number) => looks + Math.floor((performance.now() - began) / 2_000),
    hint: (workerHost: string) => hints.publish(`queue ${teamId} ${workerHost}`),
    end,
    /** What runs there ends, and its connection says so. */
    free(workerId: string) {
      end(workerId)
      dispatcher.wake({ teamId, workerId })
    },
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await dispatcher.ended
      await db.close()
    },
  }
}
