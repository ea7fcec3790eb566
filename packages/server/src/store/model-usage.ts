import type { ModelUsage } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

export interface NewModelUsage extends ModelUsage {
  id: string
  runId: string
  executionId: string
  provider: string
  /** The provider's own name. */
  model: string
  estimated: boolean
}

/** Writes many at once. A repeated one is left as it is: the answer to its first writing was lost. Answers the ids of those that are new. */
export async function insertModelUsages(tx: Tx, usages: NewModelUsage[]): Promise<Set<string>> {
  const column = (name: keyof NewModelUsage) => usages.map((usage) => usage[name] ?? null)
  const { rows } = await tx.query<{ id: string }>(
    `insert into model_usage (id, run_id, execution_id, provider, model, input_tokens, output_tokens, cache_read_tokens,
                              cache_write_tokens, reasoning_tokens, cost_usd, estimated)
     select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
                          $9::bigint[], $10::bigint[], $11::float8[], $12::boolean[])
     on conflict (id) do nothing
     returning id`,
    [
      column('id'),
      column('runId'),
      column('executionId'),
      column('provider'),
      column('model'),
      column('input_tokens'),
      column('output_tokens'),
      column('cache_read_tokens'),
      column('cache_write_tokens'),
      column('reasoning_tokens'),
      column('cost_usd'),
      column('estimated'),
    ],
  )
  return new Set(rows.map(({ id }) => id))
}

/** Whose execution a token is, and whether its models may be called with it: from the claim on, until the end. */
export async function findModelCaller(
  db: Queryable,
  tokenHash: Buffer,
): Promise<{ executionId: string; runId: string; isLive: boolean } | undefined> {
  const { rows } = await db.query<{ id: string; run_id: string; is_live: boolean }>(
    `select id, run_id, state not in ('offered', 'ended', 'lost') as is_live from executions where token_hash = $1`,
    [tokenHash],
  )
  const row = rows[0]
  return row && { executionId: row.id, runId: row.run_id, isLive: row.is_live }
}
