/**
 * What the calls of models have cost, on its way into the database: a row of `model_usage` and an event in the run's log, in one transaction.
 *
 * Nobody waits for it. What comes while a transaction runs is written by the next one, so a busy gateway writes few large ones. While the
 * database is away everything waits in memory, up to a limit; what cannot be written for another reason is tried alone, and given up with an
 * error in the log. A transaction whose answer was lost is repeated: rows that are there already make no second event.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { SessionEventData } from '@openoz/protocol'
import type { Logger } from 'pino'
import { v7 as uuidv7 } from 'uuid'
import type { Topic } from '../domain/context.ts'
import { type Database, isDatabaseAway, isNotMigrated } from '../store/database.ts'
import { insertModelUsages, type NewModelUsage } from '../store/model-usage.ts'
import { appendToLogs } from '../store/session-log.ts'
import type { ModelCaller } from './model-callers.ts'
import type { Usage } from './usage-tally.ts'

export interface UsageRecord extends ModelCaller, Usage {
  /** `openai` */
  provider: string
  /** The provider's own name for the model. */
  model: string
  costUsd: number | undefined
}

export interface UsageLog {
  /** Never throws. */
  record(usage: UsageRecord): void
  /** How many are not written yet. */
  waiting(): number
  /** Resolves when all that was recorded is written, or given up: at the latest after `patienceMs`. */
  close(patienceMs: number): Promise<void>
}

const maxWaiting = 50_000
const maxAtOnce = 500
/** What ends within so many milliseconds is written together: calls of one agent come one after the other, and a transaction each costs more than the calls. */
const gatherMs = 10
const retryMs = 250

interface UsageLogDeps {
  db: Database
  publish: (topic: Topic) => void
  log: Pick<Logger, 'error' | 'warn'>
}

export function createUsageLog({ db, publish, log }: UsageLogDeps): UsageLog {
  const closing = new AbortController()
  let waiting: NewModelUsage[] = []
  let writing: Promise<void> | undefined
  let isAway = false

  async function write(usages: NewModelUsage[]): Promise<void> {
    const runIds = await db.transaction(async (tx) => {
      const written = await insertModelUsages(tx, usages)
      const events = usages.filter(({ id }) => written.has(id)).map(toEvent)
      if (events.length > 0) await appendToLogs(tx, events)
      return new Set(events.map(({ runId }) => runId))
    })
    for (const runId of runIds) publish(`run ${runId}`)
  }

  async function writeEach(usages: NewModelUsage[]): Promise<void> {
    for (const usage of usages)
      try {
        await write([usage])
      } catch (error) {
        if (isDatabaseAway(error)) throw error
        const { runId, executionId, input_tokens, output_tokens } = usage
        log.error({ error, runId, executionId, input_tokens, output_tokens }, 'model usage not recorded')
        waiting = waiting.filter(({ id }) => id !== usage.id)
      }
  }

  async function writeAll(): Promise<void> {
    while (waiting.length > 0 && !(isAway && closing.signal.aborted)) {
      await sleep(gatherMs, undefined, { signal: closing.signal }).catch(() => {})
      const usages = waiting.slice(0, maxAtOnce)
      try {
        await write(usages).catch((error: unknown) => {
          if (isDatabaseAway(error) || isNotMigrated(error)) throw error
          return writeEach(usages)
        })
        const done = new Set(usages)
        waiting = waiting.filter((usage) => !done.has(usage))
        isAway = false
      } catch (error) {
        if (!isAway) log.warn({ error: (error as Error).message }, 'model usage waits for the database')
        isAway = true
        await sleep(retryMs, undefined, { signal: closing.signal }).catch(() => {})
      }
    }
  }

  return {
    record({ runId, executionId, provider, model, estimated, costUsd, ...usage }) {
      if (waiting.length >= maxWaiting) {
        log.error({ runId, executionId, ...usage }, 'model usage not recorded: too much waits for the database')
        return
      }
      waiting.push({
        id: uuidv7(),
        runId,
        executionId,
        provider,
        model,
        input_tokens: usage.inputTokens,
        output_tokens: usage.outputTokens,
        cache_read_tokens: usage.cacheReadTokens,
        cache_write_tokens: usage.cacheWriteTokens,
        reasoning_tokens: usage.reasoningTokens,
        ...(costUsd !== undefined && { cost_usd: costUsd }),
        estimated,
      })
      writing ??= writeAll().finally(() => {
        writing = undefined
      })
    },
    waiting: () => waiting.length,
    async close(patienceMs) {
      const tooLate = Promise.withResolvers<void>()
      const timer = setTimeout(() => {
        closing.abort()
        tooLate.resolve()
      }, patienceMs)
      await Promise.race([writing, tooLate.promise])
      clearTimeout(timer)
      if (waiting.length > 0) log.error({ requests: waiting.length }, 'model usage not recorded: the database is away')
    },
  }
}

function toEvent(usage: NewModelUsage) {
  const { executionId, id, runId, provider, model, estimated, ...counts } = usage
  const data: SessionEventData['usage'] = {
    model: `${provider}/${model}`,
    provider,
    ...counts,
    ...(estimated && { estimated }),
  }
  return { runId, type: 'usage', data: JSON.stringify(data), at: null, n: null, executionId }
}
