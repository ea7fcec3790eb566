import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '@openoz/machine'
import { type Database, openDatabase } from '@openoz/server'
import { createLogger } from '../log.ts'
import { keepAgentLogs } from './agent-logs.ts'
import { collectEvidence, type Evidence, isOfEngine } from './evidence.ts'
import { type Faults, startFaults } from './faults.ts'
import { startGuard } from './guard.ts'
import { startChaosModel } from './model.ts'
import { endOwnProcesses, listOwnProcesses } from './own-processes.ts'
import { type People, startPeople } from './people.ts'
import type { RoundPlan } from './plan.ts'
import { openRoundEngine, type RoundEngine } from './round-engine.ts'
import { createLedger, type RoundFolder } from './round-folder.ts'
import { settle } from './settle.ts'
import { type Stack, startStack } from './stack.ts'

/**
 * One round, from an empty folder to its evidence: start everything → send runs and do damage → heal everything → wait for rest → stop the
 * workers → look at what is left → stop the rest. Nothing that it started runs when it resolves or rejects.
 */
export interface RoundInput {
  plan: RoundPlan
  folder: RoundFolder
  /** Of the docker backend: see `openRoundEngine`. */
  image?: string
  /** A sentence for who looks on. */
  onProgress: (text: string) => void
  signal: AbortSignal
}

export interface RoundResult {
  evidence: Evidence
  /** By `target how`. */
  faults: Record<string, number>
  seconds: number
}

export async function performRound(input: RoundInput): Promise<RoundResult> {
  const { folder } = input
  await using _guard = startGuard(folder)
  try {
    return await perform(input)
  } finally {
    await endOwnProcesses(folder)
  }
}

async function perform({ plan, folder, image, onProgress, signal }: RoundInput): Promise<RoundResult> {
  const startedAt = performance.now()
  for (const { index } of plan.runs) createLedger(folder, index)
  const log = createLogger({ name: 'chaos', level: 'silent', env: {} })
  await using model = await startChaosModel(folder, plan.seed)
  onProgress('starting database, servers and workers')
  await using engine =
    plan.backend === 'docker' ? await openRoundEngine({ folder, image, env: process.env, log }) : undefined
  if (engine) onProgress(describeEngine(engine))
  await using stack = await startStack({ plan, folder, modelUrl: model.url, engine, log, signal })
  using _logs = keepAgentLogs(folder, stack.stateDirs)
  const db = openDatabase({ ...stack.database.connection, max: 2 }, () => {})
  try {
    await untilConnected(db, stack, signal)
    const serverUrl = `http://127.0.0.1:${stack.links.people.port}`
    const { apiKey } = stack
    const total = plan.runs.length
    const onSettled = () => onProgress(`${people.done} of ${total} runs at rest`)
    const over = new AbortController()
    const people: People = startPeople({
      ...{ plan, serverUrl, apiKey, onSettled },
      signal: AbortSignal.any([over.signal, signal]),
    })
    try {
      const faults = await doDamage({ plan, folder, onProgress, signal }, { stack, people })
      const leftOver = await settle({
        ...{ stack, folder, people, db, signal },
        onWait: (what) => onProgress(`waiting for ${what}`),
      })
      const evidence = await collectEvidence({ plan, folder, people, stack, model: model.seen, db, leftOver })
      await Promise.all(people.viewers.map((viewer) => viewer[Symbol.asyncDispose]()))
      evidence.impolite = await stopAll(stack, folder)
      writeFileSync(join(folder.path, 'evidence.json'), JSON.stringify(evidence), { mode: 0o600 })
      const seconds = Math.round((performance.now() - startedAt) / 1000)
      return { evidence, faults: Object.fromEntries(faults.done), seconds }
    } finally {
      // Whoever waits for an answer would ask for ever.
      over.abort()
      await Promise.all(people.viewers.map((viewer) => viewer[Symbol.asyncDispose]()))
    }
  } finally {
    await db.close()
  }
}

/** Resolves when people have had their say, however long that took, and all faults are over. */
async function doDamage(
  { plan, folder, onProgress, signal }: RoundInput,
  { stack, people }: { stack: Stack; people: People },
): Promise<Faults> {
  const enough = new AbortController()
  const faults = startFaults({
    faults: plan.faults,
    stack,
    folder,
    onFault: onProgress,
    signal: AbortSignal.any([enough.signal, signal]),
  })
  // Faults that nobody would notice any more are left out.
  const limit = new AbortController()
  await Promise.race([
    people.finished,
    faults.finished.then(() => untilNobodyGetsOn(people, AbortSignal.any([limit.signal, signal]))),
  ])
  limit.abort()
  enough.abort()
  await faults.finished
  signal.throwIfAborted()
  return faults
}

/** A person who still waits after so long without anybody's run having come to rest is told of in the report, by their own run. */
const patienceMs = 240_000

async function untilNobodyGetsOn(people: People, signal: AbortSignal): Promise<void> {
  for (let done = -1; done !== people.done && !signal.aborted; ) {
    done = people.done
    await sleep(patienceMs, signal)
  }
}

async function untilConnected(db: Database, stack: Stack, signal: AbortSignal): Promise<void> {
  const giveUpAt = performance.now() + 120_000
  for (;;) {
    const count = await db
      .query<{ count: number }>('select count(*)::int as count from worker_connections')
      .then(({ rows }) => rows[0]?.count ?? 0)
      .catch(() => 0)
    if (count >= stack.workers.length) return
    if (performance.now() > giveUpAt) throw new Error('the workers do not connect; their logs say why')
    await sleep(200, signal)
  }
}

/** Names of what had to be killed, or was still there although everything was told to end. */
async function stopAll(stack: Stack, folder: RoundFolder): Promise<string[]> {
  const polite = await stack.stopServers()
  const impolite = stack.servers.filter((_, index) => !polite[index]).map(({ name }) => name)
  await stack.database.stop()
  // The engine ends after the stack.
  const alive = listOwnProcesses(folder).filter((own) => !isOfEngine(own, folder))
  const left = alive.map(({ pid, argv }) => `process ${pid} (${argv.join(' ').slice(0, 160)})`)
  return [...impolite, ...left]
}

function describeEngine({ own, socket, image }: RoundEngine): string {
  return own ? 'an engine of its own runs the containers' : `the engine at ${socket} runs the containers, of ${image}`
}
