import type { Queryable } from './database.ts'

export interface NewModelUsage {
  id: string
  runId: string
  executionId: string
  provider: string
  model: string
  inputTokens: number
  outputTokens: number
  cachedInputTokens: number
  estimated: boolean
}

export async function insertModelUsage(db: Queryable, usage: NewModelUsage): Promise<void> {
  await db.query(
    `insert into model_usage (id, run_id, execution_id, provider, model, input_tokens, output_tokens, cached_input_tokens, estimated)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
    [
      usage.id,
      usage.runId,
      usage.executionId,
      usage.provider,
      usage.model,
      usage.inputTokens,
      usage.outputTokens,
      usage.cachedInputTokens,
      usage.estimated,
    ],
  )
}
