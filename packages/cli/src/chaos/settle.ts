import { sleep } from '@openoz/machine'
import type { Database } from '@openoz/server'
import { type LeftOver, listLeftOvers } from './evidence.ts'
import type { People } from './people.ts'
import type { RoundFolder } from './round-folder.ts'
import type { Stack } from './stack.ts'

/**
 * After the last fault everything gets the time that it is promised to need, and not more: leases run out, retries are made, workers sweep what
 * nobody owns, viewers read to the end. What is not at rest then never will be.
 */
export interface SettleInput {
  stack: Stack
  folder: RoundFolder
  people: People
  db: Database
  onWait: (text: string) => void
  signal: AbortSignal
}

/** Several times the lease table of a round, one after the other: lost, retried, lost again. */
const restWithinMs = 240_000
/** Workers sweep every minute; servers forget the connections of servers that are gone within another. */
const sweptWithinMs = 150_000
/** Without a word for so long, the sweep of a new process is tried: it is promised at its start. */
const restartAfterMs = 5_000
const viewersWithinMs = 60_000
const workerStopMs = 45_000

/** Answers what is left over, when that got no less. */
export async function settle(input: SettleInput): Promise<LeftOver[]> {
  const { stack, folder, people, db, onWait, signal } = input
  onWait('everything to come to rest')
  await waitFor(() => isAtRest(db), { withinMs: restWithinMs, signal })
  onWait('the viewers')
  await waitFor(() => haveSeenAll(people, db), { withinMs: viewersWithinMs, signal })
  onWait('the workers’ sweep')
  await waitFor(async () => (await leftToSweep(input)).length === 0, { withinMs: restartAfterMs, signal })
  const left = await leftToSweep(input)
  if (left.length > 0) {
    onWait(`${left.length} things to be swept, such as ${left[0]?.name}`)
    await Promise.all(stack.workers.map((worker) => worker.restart(workerStopMs)))
    await waitFor(async () => (await leftToSweep(input)).length === 0, { withinMs: sweptWithinMs, signal })
  }
  onWait('the workers to stop')
  await stack.stopWorkers()
  const leftOver = async () => listLeftOvers({ folder, stack, db })
  await waitFor(async () => (await leftOver()).length === 0, { withinMs: sweptWithinMs / 3, signal })
  // What the end of an idle agent added to the log.
  await waitFor(() => haveSeenAll(people, db), { withinMs: viewersWithinMs, signal })
  return await leftOver()
}

const swept: readonly LeftOver['what'][] = ['file', 'container', 'volume', 'network']

async function leftToSweep({ folder, stack, db }: SettleInput): Promise<LeftOver[]> {
  const left = await listLeftOvers({ folder, stack, db })
  // Work that an agent could not deliver is kept for the operator, and no sweep removes it.
  return left.filter(({ what, name }) => swept.includes(what) && !name.includes('/saved-workspaces/'))
}

async function isAtRest(db: Database): Promise<boolean> {
  const { rows } = await db.query<{ count: number }>(
    `select (select count(*) from runs where state in ('QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS'))::int
          + (select count(*) from executions where state in ('offered', 'claimed', 'running'))::int as count`,
  )
  return rows[0]?.count === 0
}

async function haveSeenAll({ viewers }: People, db: Database): Promise<boolean> {
  const { rows } = await db.query<{ run_id: string; last_seq: number }>('select run_id, last_seq from session_logs')
  const last = new Map(rows.map(({ run_id, last_seq }) => [run_id, last_seq]))
  return viewers.every(({ runId, lastSeq }) => lastSeq >= (last.get(runId) ?? 0))
}

async function waitFor(
  isSo: () => Promise<boolean>,
  { withinMs, signal }: { withinMs: number; signal: AbortSignal },
): Promise<void> {
  const giveUpAt = performance.now() + withinMs
  // A question that was not answered (the database is just coming back) is asked again.
  while (!(await isSo().catch(() => false)) && performance.now() < giveUpAt) await sleep(300, signal)
}
