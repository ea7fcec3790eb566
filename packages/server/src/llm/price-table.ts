import type { PriceTable } from './prices.ts'

/**
 * List prices, for orientation: what is billed is decided by contract, region, tier and time of day. Not in it: surcharges for very long prompts
 * (Gemini above 200,000 tokens, Claude with its window of a million), caches of an hour, batches, tools of the provider. Cache writes are those
 * of five minutes. Bedrock and Azure are left out, since there region and deployment decide.
 *
 * Sources: docs.claude.com/en/docs/about-claude/pricing, platform.openai.com/docs/pricing, ai.google.dev/gemini-api/docs/pricing
 */
export const builtInPrices: PriceTable = {
  as_of: '2026-02-01',
  prices: {
    'anthropic/claude-opus-4-6*': { input: 5, output: 25, cache_read: 0.5, cache_write: 6.25 },
    'anthropic/claude-opus-4-5*': { input: 5, output: 25, cache_read: 0.5, cache_write: 6.25 },
    'anthropic/claude-opus-4-1*': { input: 15, output: 75, cache_read: 1.5, cache_write: 18.75 },
    'anthropic/claude-opus-4-0': { input: 15, output: 75, cache_read: 1.5, cache_write: 18.75 },
    'anthropic/claude-opus-4-2025*': { input: 15, output: 75, cache_read: 1.5, cache_write: 18.75 },
    'anthropic/claude-sonnet-4*': { input: 3, output: 15, cache_read: 0.3, cache_write: 3.75 },
    'anthropic/claude-haiku-4-5*': { input: 1, output: 5, cache_read: 0.1, cache_write: 1.25 },
    'anthropic/claude-3-7-sonnet*': { input: 3, output: 15, cache_read: 0.3, cache_write: 3.75 },
    'anthropic/claude-3-5-sonnet*': { input: 3, output: 15, cache_read: 0.3, cache_write: 3.75 },
    'anthropic/claude-3-5-haiku*': { input: 0.8, output: 4, cache_read: 0.08, cache_write: 1 },
    'anthropic/claude-3-opus*': { input: 15, output: 75, cache_read: 1.5, cache_write: 18.75 },
    'anthropic/claude-3-haiku*': { input: 0.25, output: 1.25, cache_read: 0.03, cache_write: 0.3 },

    'openai/gpt-5.2': { input: 1.75, output: 14, cache_read: 0.175 },
    'openai/gpt-5.2-2025*': { input: 1.75, output: 14, cache_read: 0.175 },
    'openai/gpt-5.1': { input: 1.25, output: 10, cache_read: 0.125 },
    'openai/gpt-5.1-2025*': { input: 1.25, output: 10, cache_read: 0.125 },
    'openai/gpt-5.1-codex': { input: 1.25, output: 10, cache_read: 0.125 },
    'openai/gpt-5.1-codex-mini': { input: 0.25, output: 2, cache_read: 0.025 },
    'openai/gpt-5': { input: 1.25, output: 10, cache_read: 0.125 },
    'openai/gpt-5-2025*': { input: 1.25, output: 10, cache_read: 0.125 },
    'openai/gpt-5-codex': { input: 1.25, output: 10, cache_read: 0.125 },
    'openai/gpt-5-mini*': { input: 0.25, output: 2, cache_read: 0.025 },
    'openai/gpt-5-nano*': { input: 0.05, output: 0.4, cache_read: 0.005 },
    'openai/gpt-5-pro*': { input: 15, output: 120 },
    'openai/gpt-4.1': { input: 2, output: 8, cache_read: 0.5 },
    'openai/gpt-4.1-2025*': { input: 2, output: 8, cache_read: 0.5 },
    'openai/gpt-4.1-mini*': { input: 0.4, output: 1.6, cache_read: 0.1 },
    'openai/gpt-4.1-nano*': { input: 0.1, output: 0.4, cache_read: 0.025 },
    'openai/gpt-4o': { input: 2.5, output: 10, cache_read: 1.25 },
    'openai/gpt-4o-2024-08-06': { input: 2.5, output: 10, cache_read: 1.25 },
    'openai/gpt-4o-2024-11-20': { input: 2.5, output: 10, cache_read: 1.25 },
    'openai/gpt-4o-mini': { input: 0.15, output: 0.6, cache_read: 0.075 },
    'openai/gpt-4o-mini-2024*': { input: 0.15, output: 0.6, cache_read: 0.075 },
    'openai/o3': { input: 2, output: 8, cache_read: 0.5 },
    'openai/o3-2025*': { input: 2, output: 8, cache_read: 0.5 },
    'openai/o3-mini*': { input: 1.1, output: 4.4, cache_read: 0.55 },
    'openai/o4-mini': { input: 1.1, output: 4.4, cache_read: 0.275 },
    'openai/o4-mini-2025*': { input: 1.1, output: 4.4, cache_read: 0.275 },

    'google/gemini-3-pro-preview*': { input: 2, output: 12, cache_read: 0.2 },
    'google/gemini-3-flash-preview*': { input: 0.5, output: 3, cache_read: 0.05 },
    'google/gemini-2.5-pro': { input: 1.25, output: 10, cache_read: 0.125 },
    'google/gemini-2.5-flash': { input: 0.3, output: 2.5, cache_read: 0.03 },
    'google/gemini-2.5-flash-lite': { input: 0.1, output: 0.4, cache_read: 0.01 },
    'google/gemini-2.0-flash': { input: 0.1, output: 0.4, cache_read: 0.025 },
  },
}
