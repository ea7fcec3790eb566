import { randomUUID } from 'node:crypto'
import { sleep } from '@openoz/machine'
import { type ApiClient, ApiError, isLive } from '@openoz/protocol'
import { openConnection } from '../connection.ts'
import { noteText, turnText } from './conversation-script.ts'
import type { RoundPlan, RunPlan } from './plan.ts'
import { isAtRest, startViewer, type Viewer } from './viewer.ts'

/** What a server has answered with a yes: from then on it may not be lost, and may not happen twice. */
export type Accepted =
  | { kind: 'create'; run: number; runId: string; text: string }
  | { kind: 'turn'; run: number; runId: string; text: string; messageId: string; plannedTurn: number }
  | { kind: 'note'; run: number; runId: string; text: string; messageId: string }
  | { kind: 'cancel'; run: number; runId: string; wasTaken: boolean }

/** A refusal that asking again would not change. */
export interface Refused {
  run: number
  what: string
  problem: string
}

/**
 * The people of a round. Each sends one run, watches it, follows up, steers, cancels and answers questions as planned, and tries whatever was not
 * answered again under the same key until it is.
 */
export interface People {
  readonly accepted: readonly Accepted[]
  readonly refused: readonly Refused[]
  readonly viewers: readonly Viewer[]
  readonly done: number
  /** Resolves when everybody has said everything, and everything has come to rest; rejects when the signal is aborted before. */
  finished: Promise<void>
}

interface Office {
  serverUrl: string
  apiKey: string
  accepted: Accepted[]
  refused: Refused[]
  viewers: Viewer[]
  signal: AbortSignal
}

/** Several times what the workers can do at a time, so that runs wait, and few enough that the last ones are sent while there is damage still. */
const atOnce = 40

/** For one attempt: what hangs in the network is tried again. */
const attemptMs = 8_000

export function startPeople(input: {
  plan: RoundPlan
  serverUrl: string
  apiKey: string
  /** The runs of the plan, from the first one that is not there yet. */
  onSettled: () => void
  signal: AbortSignal
}): People {
  const { plan, serverUrl, apiKey, onSettled, signal } = input
  const office: Office = { serverUrl, apiKey, accepted: [], refused: [], viewers: [], signal }
  let done = 0
  const everybody = async () => {
    const performing = new Set<Promise<void>>()
    for (const run of plan.runs) {
      await sleep(run.afterMs, signal)
      if (performing.size >= atOnce) await Promise.race(performing)
      const performed = performRun(run, office).then(() => {
        done++
        onSettled()
        performing.delete(performed)
      })
      // Waited for further down.
      performed.catch(() => {})
      performing.add(performed)
    }
    await Promise.all(performing)
  }
  const finished = everybody()
  // Whoever waits for it gets the error.
  finished.catch(() => {})
  return {
    accepted: office.accepted,
    refused: office.refused,
    viewers: office.viewers,
    get done() {
      return done
    },
    finished,
  }
}

async function performRun(plan: RunPlan, office: Office): Promise<void> {
  const { signal, accepted } = office
  const { index, turns, cancel } = plan
  const first = turns[0]
  if (!first) return
  const prompt = turnText(index, 0, first)
  const idempotencyKey = randomUUID()
  const config = { idle_timeout_minutes: plan.idleMinutes, ...(plan.workerHost && { worker_host: plan.workerHost }) }
  const created = await insist(office, { run: index, what: 'create' }, (client) =>
    client.runs.create({ prompt, config }, { idempotencyKey }),
  )
  if (!created) return
  const runId = created.run_id
  accepted.push({ kind: 'create', run: index, runId, text: prompt })
  const { serverUrl, apiKey } = office
  const [eyes, other] = ['a', 'b'].map((name) =>
    startViewer({ name: `${index}${name}`, serverUrl, apiKey, runId }),
  ) as [Viewer, Viewer]
  office.viewers.push(eyes, other)

  let messageId: string | undefined
  for (const [turn, { begins, said }] of turns.entries()) {
    if (turn > 0) {
      if (begins !== 'at-once') await untilAtRest(eyes, office)
      if (begins === 'at-end') await untilEnded(runId, office)
      if (begins === 'at-once') await until(eyes, signal, () => eyes.callsSince(messageId) > 0 || isAtRest(eyes))
      const text = turnText(index, turn, turns[turn] ?? first)
      const sent = await followUp(office, { plan, runId, text, mode: 'queue' })
      if (!sent) continue
      eyes.wake()
      messageId = sent
      accepted.push({ kind: 'turn', run: index, runId, text, messageId, plannedTurn: turn })
    }
    const since = messageId
    for (const [number, { afterCalls, mode }] of said.entries()) {
      await until(eyes, signal, () => eyes.callsSince(since) >= afterCalls || restsAfter(eyes, since))
      const text = noteText(index, turn, number)
      const note = await followUp(office, { plan, runId, text, mode })
      if (note) accepted.push({ kind: 'note', run: index, runId, text, messageId: note })
      if (note) messageId = note
      if (note) eyes.wake()
    }
    if (cancel?.turn === turn) {
      await until(eyes, signal, () => eyes.callsSince(since) >= cancel.afterCalls || restsAfter(eyes, since))
      const answer = await insist(office, { run: index, what: 'cancel', isFine: 'run_not_cancellable' }, (client) =>
        client.runs.cancel(runId),
      )
      accepted.push({ kind: 'cancel', run: index, runId, wasTaken: answer !== undefined })
      await untilAtRest(eyes, office)
    }
  }
  await untilAtRest(eyes, office)
}

async function followUp(
  office: Office,
  said: { plan: RunPlan; runId: string; text: string; mode: 'queue' | 'steer' | 'interrupt' },
): Promise<string | undefined> {
  const idempotencyKey = randomUUID()
  const answer = await insist(office, { run: said.plan.index, what: said.mode }, (client) =>
    client.runs.followUp(said.runId, { message: said.text, mode: said.mode }, { idempotencyKey }),
  )
  return answer?.message_id
}

/** Until there is an answer. undefined: it is no, and stays no. */
async function insist<T>(
  office: Office,
  { run, what, isFine }: { run: number; what: string; isFine?: string },
  ask: (client: ApiClient) => Promise<T>,
): Promise<T | undefined> {
  const { refused, signal } = office
  for (;;) {
    signal.throwIfAborted()
    try {
      return await askOnce(office, ask)
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof ApiError && !error.problem.retryable && error.problem.status < 500) {
        const { code, detail } = error.problem
        if (code !== isFine) refused.push({ run, what, problem: `${code}: ${detail}` })
        return undefined
      }
      await sleep(300, signal)
    }
  }
}

async function askOnce<T>({ serverUrl, apiKey, signal }: Office, ask: (client: ApiClient) => Promise<T>): Promise<T> {
  await using connection = openConnection({ serverUrl, apiKey, env: {}, signal, timeoutMs: attemptMs })
  return await ask(connection.client)
}

async function until(eyes: Viewer, signal: AbortSignal, isSo: () => boolean): Promise<void> {
  while (!isSo()) {
    signal.throwIfAborted()
    await eyes.next(1_000, signal)
  }
}

function restsAfter(eyes: Viewer, messageId: string | undefined): boolean {
  return isAtRest(eyes) && (messageId === undefined || eyes.hasSeenMessage(messageId))
}

/** What a viewer sees may be old: the run itself is asked, as the last word. */
async function untilAtRest(eyes: Viewer, office: Office): Promise<void> {
  for (;;) {
    await until(eyes, office.signal, () => isAtRest(eyes))
    const run = await insist(office, { run: -1, what: 'look' }, (client) => client.runs.get(eyes.runId))
    if (run && run.last_event_sequence === eyes.lastSeq && isAtRest(eyes)) return
    await eyes.next(500, office.signal)
  }
}

/** No agent is there that could take up what is said next. */
async function untilEnded(runId: string, office: Office): Promise<void> {
  for (;;) {
    const answer = await insist(office, { run: -1, what: 'look' }, (client) => client.runs.executions(runId))
    if (!answer?.executions.some(({ state }) => isLive(state))) return
    await sleep(500, office.signal)
  }
}
