import { readFileSync } from 'node:fs'
import { AppError } from '@openoz/protocol'
import { z } from 'zod'
import type { ModelProvider } from './model-provider.ts'
import { builtInPrices } from './price-table.ts'
import type { Usage } from './usage-tally.ts'

const dollars = z.number().min(0)

/** US dollars per million tokens. */
const price = z.strictObject({
  input: dollars,
  output: dollars,
  /** Default: as input. */
  cache_read: dollars.optional(),
  cache_write: dollars.optional(),
})

/** Of `OZ_PRICES_FILE`, and of our own table. */
const priceTable = z.strictObject({
  /** When the prices were looked up: `2026-02-01`. */
  as_of: z.iso.date(),
  /** By `provider/model`; `*` stands for any characters. */
  prices: z.record(z.string().regex(/^[^/\s]+\/\S+$/, 'must be provider/model'), price),
})

export type PriceTable = z.infer<typeof priceTable>

export interface Prices {
  /** US dollars; undefined: nobody has said what the model costs. */
  cost(provider: ModelProvider, model: string, usage: Usage): number | undefined
}

/**
 * A user's own prices are looked up first, by the model's id as users see it (`work/claude-sonnet-4-5`) and then by its vendor's
 * (`anthropic/claude-sonnet-4-5`). A name in full goes before one with `*`, a longer one before a shorter. Throws `option_invalid`.
 */
export function createPrices(file: string | null): Prices {
  const tables = [...(file === null ? [] : [readPricesFile(file)]), builtInPrices].map(toFinder)
  // Few models are used at a time, and each of them for thousands of requests.
  const found = new Map<string, Price | null>()

  function find(provider: ModelProvider, model: string): Price | null {
    for (const finder of tables)
      for (const name of new Set([provider.name, provider.kind])) {
        const hit = finder(`${name}/${model}`)
        if (hit) return hit
      }
    return provider.kind === 'ollama' ? { input: 0, output: 0 } : null
  }

  return {
    cost(provider, model, usage) {
      const id = `${provider.name}/${model}`
      let hit = found.get(id)
      if (hit === undefined) {
        if (found.size > 10_000) found.clear()
        hit = find(provider, model)
        found.set(id, hit)
      }
      return hit === null ? undefined : costOf(hit, usage)
    },
  }
}

type Price = z.infer<typeof price>

function costOf({ input, output, cache_read = input, cache_write = input }: Price, usage: Usage): number {
  const millionths =
    usage.inputTokens * input +
    usage.outputTokens * output +
    usage.cacheReadTokens * cache_read +
    usage.cacheWriteTokens * cache_write
  // A thousandth of a millionth: below that there is only the noise of fractions.
  return Math.round(millionths * 1000) / 1e9
}

function toFinder({ prices }: PriceTable): (id: string) => Price | undefined {
  const patterns = Object.entries(prices)
    .filter(([pattern]) => pattern.includes('*'))
    .sort(([a], [b]) => b.length - a.length)
    .map(([pattern, value]) => ({ regex: toRegex(pattern), value }))
  return (id) =>
    (Object.hasOwn(prices, id) ? prices[id] : undefined) ?? patterns.find(({ regex }) => regex.test(id))?.value
}

function toRegex(pattern: string): RegExp {
  const literal = (text: string) => text.replace(/[\\^$.|?+()[\]{}]/g, '\\$&')
  return new RegExp(`^${pattern.split('*').map(literal).join('.*')}$`)
}

function readPricesFile(file: string): PriceTable {
  const invalid = (problem: string) => new AppError('option_invalid', { option: 'OZ_PRICES_FILE', problem })
  let json: unknown
  try {
    json = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw invalid(error instanceof SyntaxError ? `${file} is not JSON` : `${file} cannot be read`)
  }
  const parsed = priceTable.safeParse(json)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw invalid(`${file} does not fit at ${issue?.path.join('.') || 'its top'}: ${issue?.message}`)
}
