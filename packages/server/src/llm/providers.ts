import type { ModelProvider, ProviderKind } from './model-provider.ts'
import { makeByKind } from './provider-kinds.ts'

export interface FoundProviders {
  /** In the order in which a default model is looked for. */
  providers: ModelProvider[]
  /** What could be there, and what is missing for it: half a sentence for people. */
  missing: { name: string; reason: string }[]
}

interface KnownProvider {
  kind: ProviderKind
  /** Variables of its key and of its address. */
  key?: string
  base: string
  /** What is missing, given what is set; nothing when all is there. */
  missing(is: (variable: string) => boolean): string | undefined
}

/** An address alone is enough where local servers want no key. */
const eitherOf = (key: string, base: string) => (is: (variable: string) => boolean) =>
  is(key) || is(base) ? undefined : `${key} is not set`

/** Under the names that the vendors' own SDKs read. */
const known: KnownProvider[] = [
  ...(
    [
      ['anthropic', 'ANTHROPIC_API_KEY', 'ANTHROPIC_BASE_URL'],
      ['openai', 'OPENAI_API_KEY', 'OPENAI_BASE_URL'],
      ['google', 'GEMINI_API_KEY', 'GOOGLE_GEMINI_BASE_URL'],
    ] as const
  ).map(([kind, key, base]) => ({ kind, key, base, missing: eitherOf(key, base) })),
  {
    kind: 'bedrock',
    key: 'AWS_BEARER_TOKEN_BEDROCK',
    base: 'AWS_ENDPOINT_URL_BEDROCK_RUNTIME',
    missing(is) {
      if (is('AWS_ENDPOINT_URL_BEDROCK_RUNTIME')) return undefined
      if (!is('AWS_BEARER_TOKEN_BEDROCK')) return 'AWS_BEARER_TOKEN_BEDROCK is not set'
      return is('AWS_REGION') ? undefined : 'AWS_REGION is not set'
    },
  },
  {
    kind: 'azure',
    key: 'AZURE_OPENAI_API_KEY',
    base: 'AZURE_OPENAI_ENDPOINT',
    missing(is) {
      const unset = ['AZURE_OPENAI_API_KEY', 'AZURE_OPENAI_ENDPOINT'].filter((variable) => !is(variable))
      return unset.length > 0 ? `${unset.join(' and ')} ${unset.length > 1 ? 'are' : 'is'} not set` : undefined
    },
  },
  { kind: 'ollama', base: 'OLLAMA_HOST', missing: (is) => (is('OLLAMA_HOST') ? undefined : 'OLLAMA_HOST is not set') },
]

/** The providers that the environment names. Throws `option_invalid` for an address that is none. */
export function findProviders(env: Record<string, string | undefined>): FoundProviders {
  const found: FoundProviders = { providers: [], missing: [] }
  for (const { kind, key, base, missing } of known) {
    const reason = missing((variable) => read(env, variable) !== '')
    if (reason !== undefined) found.missing.push({ name: kind, reason })
    else
      found.providers.push(
        makeByKind[kind]({
          name: kind,
          key: key === undefined ? '' : read(env, key),
          base: read(env, base),
          baseOption: base,
          region: read(env, 'AWS_REGION'),
          apiVersion: read(env, 'OPENAI_API_VERSION'),
        }),
      )
  }
  return found
}

/** Keys read from files tend to end in a line break. */
export function read(env: Record<string, string | undefined>, name: string): string {
  return (env[name] ?? '').trim()
}
