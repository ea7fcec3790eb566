import { type ModelProvider, makeProvider, type ProviderKind, parseBase } from './model-provider.ts'

/** What is known of a provider before its kind says what it means. Empty texts: not set. */
export interface ProviderSettings {
  name: string
  key: string
  base: string
  /** How the setting of `base` is called, for errors. */
  baseOption: string
  /** Bedrock's. */
  region: string
  /** Azure's classic routes carry it; without it the v1 routes are used, which need none. */
  apiVersion: string
}

/** Version of the Messages API that is asked for when a client names none. */
const anthropicVersion = '2023-06-01'

/** One row per kind: how its address, its key and its routes are made. They throw `option_invalid` for an address that is none. */
export const makeByKind: Record<ProviderKind, (settings: ProviderSettings) => ModelProvider> = {
  anthropic({ name, key, base, baseOption }) {
    const root = parseBase(baseOption, base || 'https://api.anthropic.com')
    return makeProvider({
      name,
      kind: 'anthropic',
      vendor: 'ANTHROPIC',
      isVendor: root.hostname === 'api.anthropic.com',
      wire: 'anthropic-messages',
      root,
      // Anthropic's SDK appends /v1/messages to its base; a base that has the version already is a common slip.
      path: `${withoutEnd(root, '/v1')}/v1`,
      key,
      keyHeaders: { 'anthropic-version': anthropicVersion, ...(key && { 'x-api-key': key }) },
      list: '/models?limit=1000',
    })
  },

  openai({ name, key, base, baseOption }) {
    const root = parseBase(baseOption, base || 'https://api.openai.com/v1')
    // Regional addresses (eu.api.openai.com) are the vendor too.
    const isVendor = /^([a-z0-9-]+\.)?api\.openai\.com$/.test(root.hostname)
    return makeProvider({
      name,
      kind: 'openai',
      vendor: isVendor ? 'OPENAI' : 'UNKNOWN',
      isVendor,
      // Responses is where OpenAI's newer models can do everything; of compatible servers nearly all speak Chat Completions.
      wire: isVendor ? 'openai-responses' : 'openai-chat',
      root,
      path: withoutEnd(root),
      key,
      keyHeaders: bearer(key),
    })
  },

  'openai-compatible'({ name, key, base, baseOption }) {
    const root = parseBase(baseOption, base)
    return makeProvider({
      name,
      kind: 'openai-compatible',
      vendor: 'UNKNOWN',
      isVendor: false,
      wire: 'openai-chat',
      root,
      path: withoutEnd(root),
      key,
      keyHeaders: bearer(key),
    })
  },

  google({ name, key, base, baseOption }) {
    const root = parseBase(baseOption, base || 'https://generativelanguage.googleapis.com')
    return makeProvider({
      name,
      kind: 'google',
      vendor: 'GOOGLE',
      isVendor: root.hostname === 'generativelanguage.googleapis.com',
      wire: 'google-generate-content',
      root,
      // Google's SDK appends the version to its base.
      path: `${withoutEnd(root, '/v1beta')}/v1beta`,
      key,
      keyHeaders: key ? { 'x-goog-api-key': key } : {},
      list: '/models?pageSize=1000',
    })
  },

  bedrock({ name, key, base, baseOption, region }) {
    const root = parseBase(baseOption, base || `https://bedrock-runtime.${region}.amazonaws.com`)
    return makeProvider({
      name,
      kind: 'bedrock',
      vendor: 'UNKNOWN',
      isVendor: !base,
      wire: 'bedrock-converse',
      root,
      path: withoutEnd(root),
      key,
      keyHeaders: bearer(key),
      // Inference profiles, which newer models are called by, are not among the foundation models.
      lists: 'some',
      // The runtime has no list. Behind an address of one's own there is a private endpoint or another server, for the runtime alone.
      list: base ? null : new URL(`https://bedrock.${region}.amazonaws.com/foundation-models?byOutputModality=TEXT`),
    })
  },

  azure({ name, key, base, baseOption, apiVersion }) {
    const root = parseBase(baseOption, base)
    const version = `?api-version=${encodeURIComponent(apiVersion)}`
    return makeProvider({
      name,
      kind: 'azure',
      vendor: 'UNKNOWN',
      isVendor: /\.(openai\.azure\.com|cognitiveservices\.azure\.com|services\.ai\.azure\.com)$/.test(root.hostname),
      wire: 'openai-chat',
      root,
      path: `${withoutEnd(root, '(/openai)?(/v1)?')}/openai${apiVersion ? '' : '/v1'}`,
      key,
      keyHeaders: { 'api-key': key },
      // It lists what could be deployed; a deployment's name is the user's own.
      lists: 'none',
      list: apiVersion ? `/models${version}` : '/models',
      ...(apiVersion && {
        routeOf: (route, model) =>
          route === '/chat/completions'
            ? `/deployments/${encodeURIComponent(model)}${route}${version}`
            : `${route}${version}`,
      }),
    })
  },

  /** `base` as Ollama's own programs read OLLAMA_HOST: the port is 11434, but the scheme's own where a scheme is written. */
  ollama({ name, key, base, baseOption }) {
    const host = base || '127.0.0.1'
    const hasScheme = host.includes('://')
    const withHost = host.replace(/^(\w+:\/\/)?(?=:\d)/, '$1127.0.0.1')
    const root = parseBase(baseOption, hasScheme ? withHost : `http://${withHost}`)
    // Port 80 written out disappears in a URL, so the text is asked whether there is a port.
    if (!hasScheme && !/:\d+(\/|$)/.test(withHost)) root.port = '11434'
    // An address to listen on, which the same variable is for `ollama serve`, is none to connect to.
    if (root.hostname === '0.0.0.0') root.hostname = '127.0.0.1'
    if (root.hostname === '[::]') root.hostname = '[::1]'
    return makeProvider({
      name,
      kind: 'ollama',
      vendor: 'UNKNOWN',
      isVendor: false,
      wire: 'openai-chat',
      root,
      path: `${withoutEnd(root, '/v1')}/v1`,
      key,
      keyHeaders: bearer(key),
    })
  },
}

function bearer(key: string): Record<string, string> {
  return key ? { authorization: `Bearer ${key}` } : {}
}

/** The path of an address without slashes, and without what we add ourselves, at its end. */
function withoutEnd(root: URL, ours = ''): string {
  return root.pathname.replace(new RegExp(`${ours && `(${ours})?`}/*$`), '')
}
