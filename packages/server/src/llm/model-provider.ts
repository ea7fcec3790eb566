import { AppError, type ModelInfo, type ModelWire } from '@openoz/protocol'

/** What can be behind a provider's name. Readers: the providers file, default models, prices, known models. */
export const providerKinds = [
  'anthropic',
  'openai',
  'openai-compatible',
  'google',
  'bedrock',
  'azure',
  'ollama',
] as const
export type ProviderKind = (typeof providerKinds)[number]

/**
 * A configured model provider. The key is held by the closures below and nowhere else: an object of this type can be logged, listed or
 * thrown without giving it away.
 */
export interface ModelProvider {
  /** First segment of its models' ids. */
  readonly name: string
  readonly kind: ProviderKind
  /** `UNKNOWN` for a compatible server of somebody else. */
  readonly vendor: ModelInfo['provider']
  /** The vendor's own service, whose models and habits are known; otherwise some compatible server. */
  readonly isVendor: boolean
  /** What a harness shall speak to it, unless it has reasons. Every OpenAI-compatible one is also reached over the other OpenAI wire. */
  readonly wire: ModelWire
  /** Base address for people, without credentials. */
  readonly address: string
  /**
   * What it says about its models. `whole`: what is not in its list does not exist. `some`: it has more than it lists. `none`: it knows only
   * what it could have, not what the user has set up; asking tells whether address and key are good.
   */
  readonly lists: 'whole' | 'some' | 'none'
  /** Where its models are listed; null: nowhere. */
  readonly listUrl: URL | null
  /** The address of one of its routes: `/chat/completions`, `/messages`, `/models/m:generateContent`. Without credentials. */
  url(route: string, model: string): URL
  /** Headers that open it. Made for each request; do not keep. */
  credentials(): Record<string, string>
  /** The text with every trace of the key replaced, for what the provider says. */
  mask(text: string): string
}

interface ProviderParts extends Pick<ModelProvider, 'name' | 'kind' | 'vendor' | 'isVendor' | 'wire'> {
  root: URL
  /** Of the root, without a slash at its end. */
  path: string
  key: string
  keyHeaders: Record<string, string>
  lists?: ModelProvider['lists']
  /** Below the base address, or an address of its own. Default: `/models`. */
  list?: string | URL | null
  /** Where the model takes part in the address, or something follows it. Default: the route as it is. */
  routeOf?: (route: string, model: string) => string
}

export function makeProvider(parts: ProviderParts): ModelProvider {
  const { root, path, key, keyHeaders, routeOf, lists = 'whole', list = '/models', ...rest } = parts
  const credentials = { ...basicAuthorization(root), ...keyHeaders }
  const secrets = [key, decodeURIComponent(root.password), credentials.authorization?.split(' ')[1] ?? ''].filter(
    (secret) => secret.length >= 4,
  )
  const base = `${root.protocol}//${root.host}${path}`
  return {
    ...rest,
    lists,
    address: base,
    listUrl: typeof list === 'string' ? new URL(base + list) : list,
    url: (route, model) => new URL(base + (routeOf?.(route, model) ?? route)),
    credentials: () => ({ ...credentials }),
    mask: (text) => secrets.reduce((masked, secret) => masked.replaceAll(secret, '•••'), text),
  }
}

/** `https://user:password@host`: some reverse proxies in front of local models want it. */
function basicAuthorization(root: URL): { authorization?: string } {
  if (!root.username && !root.password) return {}
  const pair = `${decodeURIComponent(root.username)}:${decodeURIComponent(root.password)}`
  return { authorization: `Basic ${Buffer.from(pair).toString('base64')}` }
}

/** The value is not repeated in the error: it may hold a password. */
export function parseBase(option: string, value: string): URL {
  const url = URL.canParse(value) ? new URL(value) : undefined
  if (!url?.hostname || !['http:', 'https:'].includes(url.protocol))
    throw new AppError('option_invalid', { option, problem: 'it is not an http or https address' })
  return url
}
