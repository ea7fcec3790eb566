import type { Run } from '@openoz/protocol'

/** `12,345 in (10,000 from the cache), 678 out (500 thinking) in 9 requests · $0.0421` */
export function usageText(usage: Run['usage']): string {
  const { input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, requests } = usage
  const input = input_tokens + cache_read_tokens + cache_write_tokens
  const cached = cache_read_tokens > 0 ? ` (${countText(cache_read_tokens)} from the cache)` : ''
  const thinking = reasoning_tokens > 0 ? ` (${countText(reasoning_tokens)} thinking)` : ''
  const asked = `${countText(requests)} ${requests === 1 ? 'request' : 'requests'}`
  const tokens = `${countText(input)} in${cached}, ${countText(output_tokens)} out${thinking} in ${asked}`
  return usage.cost_usd === undefined ? tokens : `${tokens} · ${costText(usage.cost_usd)}`
}

/** A run may cost less than a cent. */
export function costText(dollars: number): string {
  return `$${dollars.toFixed(dollars < 1 ? 4 : 2)}`
}

function countText(count: number): string {
  return count.toLocaleString('en-US')
}
