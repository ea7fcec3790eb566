import { AppError, type ModelAccess, type ModelInfo } from '@openoz/protocol'

export type ModelWire = ModelAccess['wire']
export type ProviderName = 'anthropic' | 'openai' | 'ollama'

/**
 * A configured model provider. The key is held by the closures below and nowhere else: an object of this type can be logged, listed or
 * thrown without giving it away.
 */
export interface ModelProvider {
  /** First segment of its models' ids. */
  readonly name: ProviderName
  /** `UNKNOWN` for a compatible server of somebody else. */
  readonly vendor: ModelInfo['provider']
  /** The vendor's own service, whose models and habits are known; otherwise some compatible server. */
  readonly isVendor: boolean
  /** What a harness shall speak to it, unless it has reasons. Every OpenAI-compatible one is also reached over the other OpenAI wire. */
  readonly wire: ModelWire
  /** Base address for people, without credentials. */
  readonly address: string
  /** The address of one of its routes: `/models`, `/chat/completions`, `/messages`. Without credentials. */
  url(path: string): URL
  /** Headers that open it. Made for each request; do not keep. */
  credentials(): Record<string, string>
  /** The text with every trace of the key replaced, for what the provider says. */
  mask(text: string): string
}

/** Version of the Messages API that is asked for when a client names none. */
const anthropicVersion = '2023-06-01'

/**
 * The providers that the environment names, in the order in which a default model is looked for. A base address alone is enough: local
 * servers want no key. Throws `option_invalid` for an address that is none.
 */
export function findProviders(env: Record<string, string | undefined>): ModelProvider[] {
  const found = [findAnthropic(env), findOpenAi(env), findOllama(env)]
  return found.filter((provider) => provider !== undefined)
}

function findAnthropic(env: Record<string, string | undefined>): ModelProvider | undefined {
  const key = read(env, 'ANTHROPIC_API_KEY')
  const base = read(env, 'ANTHROPIC_BASE_URL')
  if (!key && !base) return undefined
  const root = parseBase('ANTHROPIC_BASE_URL', base || 'https://api.anthropic.com')
  // Anthropic's SDK appends /v1/messages to its base; a base that has the version already is a common slip.
  return makeProvider({
    name: 'anthropic',
    vendor: 'ANTHROPIC',
    isVendor: root.hostname === 'api.anthropic.com',
    wire: 'anthropic-messages',
    root,
    path: `${root.pathname.replace(/(\/v1)?\/*$/, '')}/v1`,
    key,
    keyHeaders: { 'anthropic-version': anthropicVersion, ...(key && { 'x-api-key': key }) },
  })
}

function findOpenAi(env: Record<string, string | undefined>): ModelProvider | undefined {
  const key = read(env, 'OPENAI_API_KEY')
  const base = read(env, 'OPENAI_BASE_URL')
  if (!key && !base) return undefined
  const root = parseBase('OPENAI_BASE_URL', base || 'https://api.openai.com/v1')
  // Regional addresses (eu.api.openai.com) are the vendor too.
  const isVendor = /^([a-z0-9-]+\.)?api\.openai\.com$/.test(root.hostname)
  return makeProvider({
    name: 'openai',
    vendor: isVendor ? 'OPENAI' : 'UNKNOWN',
    isVendor,
    // Responses is where OpenAI's newer models can do everything; of compatible servers nearly all speak Chat Completions.
    wire: isVendor ? 'openai-responses' : 'openai-chat',
    root,
    path: root.pathname.replace(/\/+$/, ''),
    key,
    keyHeaders: key ? { authorization: `Bearer ${key}` } : {},
  })
}

/** `OLLAMA_HOST` as Ollama's own programs read it: the port is 11434, but the scheme's own where a scheme is written. */
function findOllama(env: Record<string, string | undefined>): ModelProvider | undefined {
  const host = read(env, 'OLLAMA_HOST')
  if (!host) return undefined
  const hasScheme = host.includes('://')
  const withHost = host.replace(/^(\w+:\/\/)?(?=:\d)/, '$1127.0.0.1')
  const root = parseBase('OLLAMA_HOST', hasScheme ? withHost : `http://${withHost}`)
  // Port 80 written out disappears in a URL, so the text is asked whether there is a port.
  if (!hasScheme && !/:\d+(\/|$)/.test(withHost)) root.port = '11434'
  // An address to listen on, which the same variable is for `ollama serve`, is none to connect to.
  if (root.hostname === '0.0.0.0') root.hostname = '127.0.0.1'
  if (root.hostname === '[::]') root.hostname = '[::1]'
  return makeProvider({
    name: 'ollama',
    vendor: 'UNKNOWN',
    isVendor: false,
    wire: 'openai-chat',
    root,
    path: `${root.pathname.replace(/(\/v1)?\/*$/, '')}/v1`,
    key: '',
    keyHeaders: {},
  })
}

interface ProviderParts extends Pick<ModelProvider, 'name' | 'vendor' | 'isVendor' | 'wire'> {
  root: URL
  path: string
  key: string
  keyHeaders: Record<string, string>
}

function makeProvider({ root, path, key, keyHeaders, ...rest }: ProviderParts): ModelProvider {
  const credentials = { ...basicAuthorization(root), ...keyHeaders }
  const secrets = [key, decodeURIComponent(root.password), credentials.authorization?.split(' ')[1] ?? ''].filter(
    (secret) => secret.length >= 4,
  )
  const base = `${root.protocol}//${root.host}${path}`
  return {
    ...rest,
    address: base,
    url: (route) => new URL(base + route),
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
function parseBase(variable: string, value: string): URL {
  const url = URL.canParse(value) ? new URL(value) : undefined
  if (!url?.hostname || !['http:', 'https:'].includes(url.protocol))
    throw new AppError('option_invalid', { option: variable, problem: 'it is not an http or https address' })
  return url
}

/** Keys read from files tend to end in a line break. */
function read(env: Record<string, string | undefined>, name: string): string {
  return (env[name] ?? '').trim()
}
