/**
 * Who calls: the execution whose token it is.
 *
 * A token that was good a second ago is good now, so that a hundred calls a second cost one question; a refusal is not kept. While the database
 * is away the caller is held and asked about again, since a call that is refused costs its agent a turn of waiting, and a restart of the database
 * takes seconds.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '@openoz/protocol'
import { authenticateKey, executionTokenPrefix, hashSecret } from '../domain/actors.ts'
import { assertMay } from '../domain/permissions.ts'
import { type Database, databaseUnreachable, isDatabaseAway, isNotMigrated } from '../store/database.ts'
import { findModelCaller } from '../store/model-usage.ts'

export interface ModelCaller {
  executionId: string
  runId: string
}

export interface ModelCallers {
  /** Throws an `AppError` for a token that opens nothing, and once the database was away for too long. */
  find(token: string, signal: AbortSignal): Promise<ModelCaller>
}

/** An execution's end refuses its token within this time, plus that of the question. */
const goodForMs = 1_000
const heldForMs = 30_000
const askAgainMs = 250
/** So many executions at once are none; the map is emptied before somebody fills it. */
const maxKnown = 20_000

export function createModelCallers(db: Database, options: { heldForMs?: number } = {}): ModelCallers {
  const known = new Map<string, { caller: ModelCaller; until: number }>()
  const asking = new Map<string, Promise<ModelCaller>>()

  async function ask(token: string): Promise<ModelCaller> {
    if (!token.startsWith(executionTokenPrefix)) {
      const actor = await authenticateKey(db, token)
      assertMay(actor, 'model.call')
      throw new AppError('api_key_unknown', { suffix: token.slice(-4) })
    }
    const found = await findModelCaller(db, hashSecret(token))
    if (!found) throw new AppError('api_key_unknown', { suffix: token.slice(-4) })
    const { isLive, ...caller } = found
    if (!isLive) throw new AppError('execution_token_ended', { executionId: caller.executionId })
    if (known.size >= maxKnown) known.clear()
    known.set(token, { caller, until: performance.now() + goodForMs })
    return caller
  }

  function askOnce(token: string): Promise<ModelCaller> {
    const running = asking.get(token)
    if (running !== undefined) return running
    const answer = ask(token).finally(() => asking.delete(token))
    asking.set(token, answer)
    return answer
  }

  return {
    async find(token, signal) {
      const last = known.get(token)
      if (last && performance.now() < last.until) return last.caller
      known.delete(token)
      const giveUpAt = performance.now() + (options.heldForMs ?? heldForMs)
      for (;;) {
        try {
          return await askOnce(token)
        } catch (error) {
          if (!isDatabaseAway(error) && !isNotMigrated(error)) throw error
          if (performance.now() > giveUpAt) throw databaseUnreachable(error)
        }
        await sleep(askAgainMs, undefined, { signal })
      }
    },
  }
}
