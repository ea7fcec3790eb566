import type { ProviderKind } from './model-provider.ts'

/**
 * What vendors document and their lists do not say. First match counts; of everything else nobody knows, so nothing is said. Windows are those
 * that every account has: larger ones behind a beta header are not counted on.
 *
 * Sources: docs.claude.com/en/docs/about-claude/models, platform.openai.com/docs/models, ai.google.dev/gemini-api/docs/models,
 * docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html
 */
const knownModels: Partial<Record<ProviderKind, [RegExp, KnownModel][]>> = {
  anthropic: [
    [/^claude-(2|instant)/, { contextWindow: 100_000, canSee: false }],
    [/^claude-/, { contextWindow: 200_000, canSee: true }],
  ],
  openai: [
    [/^gpt-5(\.\d+)?-chat/, { contextWindow: 128_000, canSee: true }],
    [/^gpt-5/, { contextWindow: 400_000, canSee: true }],
    [/^gpt-[6-9]/, { canSee: true }],
    [/^gpt-4\.1/, { contextWindow: 1_047_576, canSee: true }],
    [/^(gpt-4o|gpt-4-turbo)/, { contextWindow: 128_000, canSee: true }],
    [/^(o1-mini|o1-preview)/, { contextWindow: 128_000, canSee: false }],
    [/^o3-mini/, { contextWindow: 200_000, canSee: false }],
    [/^(o1|o3|o4)/, { contextWindow: 200_000, canSee: true }],
    [/^gpt-oss/, { contextWindow: 131_072, canSee: false }],
  ],
  google: [
    [/^gemma/, {}],
    [/^gemini-/, { contextWindow: 1_048_576, canSee: true }],
  ],
  bedrock: [
    [/(^|\.)anthropic\.claude-(v2|instant)/, { contextWindow: 100_000, canSee: false }],
    [/(^|\.)anthropic\.claude-/, { contextWindow: 200_000, canSee: true }],
    [/(^|\.)amazon\.nova-(pro|lite)/, { contextWindow: 300_000, canSee: true }],
    [/(^|\.)amazon\.nova-micro/, { contextWindow: 128_000, canSee: false }],
    [/(^|\.)meta\.llama3-[123]-/, { contextWindow: 128_000 }],
  ],
}

interface KnownModel {
  /** Tokens. */
  contextWindow?: number
  canSee?: boolean
}

export function findKnownModel(kind: ProviderKind, name: string): KnownModel {
  return knownModels[kind]?.find(([pattern]) => pattern.test(name))?.[1] ?? {}
}
