import { AppError, type ModelWire } from '@openoz/protocol'

/** Whose habits an answer follows, errors too: each vendor's clients come to a path of their own. */
export type WireFamily = 'openai' | 'anthropic' | 'google' | 'bedrock'

export interface CallRoute {
  kind: 'call'
  family: WireFamily
  wire: ModelWire
  /** Named by the path, on wires whose bodies do not. */
  model: string | undefined
  /** The provider's own route, below its base. */
  upstream(model: string): string
  /** As the path says; undefined: the body says. */
  isStream: boolean | undefined
  /** Counting tokens costs none. */
  isMetered: boolean
}

export type GatewayRoute = CallRoute | { kind: 'models'; family: WireFamily }

const bodyRoutes: Record<string, { family: WireFamily; wire: ModelWire; upstream: string; isMetered: boolean }> = {
  '/llm/openai/v1/chat/completions': {
    family: 'openai',
    wire: 'openai-chat',
    upstream: '/chat/completions',
    isMetered: true,
  },
  '/llm/openai/v1/responses': { family: 'openai', wire: 'openai-responses', upstream: '/responses', isMetered: true },
  '/llm/anthropic/v1/messages': {
    family: 'anthropic',
    wire: 'anthropic-messages',
    upstream: '/messages',
    isMetered: true,
  },
  '/llm/anthropic/v1/messages/count_tokens': {
    family: 'anthropic',
    wire: 'anthropic-messages',
    upstream: '/messages/count_tokens',
    isMetered: false,
  },
}

const modelLists: Record<string, WireFamily> = {
  '/llm/openai/v1/models': 'openai',
  '/llm/anthropic/v1/models': 'anthropic',
  '/llm/google/v1beta/models': 'google',
  '/llm/bedrock/foundation-models': 'bedrock',
}

/** The model is one segment, `provider%2Fmodel`; one whose slash was not encoded is understood too. */
const googleCall = /^\/llm\/google\/v1beta\/(?:models\/)?(.+):(generateContent|streamGenerateContent|countTokens)$/
const bedrockCall = /^\/llm\/bedrock\/model\/(.+)\/(converse|converse-stream)$/

/** Everything that is served below `/llm`, for documents: `POST /llm/…`. */
export const gatewayRoutes: readonly string[] = [
  ...Object.keys(bodyRoutes).map((path) => `POST ${path}`),
  ...Object.keys(modelLists).map((path) => `GET ${path}`),
  ...['generateContent', 'streamGenerateContent', 'countTokens'].map(
    (method) => `POST /llm/google/v1beta/models/{model}:${method}`,
  ),
  ...['converse', 'converse-stream'].map((operation) => `POST /llm/bedrock/model/{model}/${operation}`),
]

/** For messages: where each wire is spoken to. */
export const pathOfWire: Record<ModelWire, string> = {
  'openai-chat': '/llm/openai/v1/chat/completions',
  'openai-responses': '/llm/openai/v1/responses',
  'anthropic-messages': '/llm/anthropic/v1/messages',
  'google-generate-content': '/llm/google/v1beta/models/{model}:generateContent',
  'bedrock-converse': '/llm/bedrock/model/{model}/converse',
}

export const familyOfWire: Record<ModelWire, WireFamily> = {
  'openai-chat': 'openai',
  'openai-responses': 'openai',
  'anthropic-messages': 'anthropic',
  'google-generate-content': 'google',
  'bedrock-converse': 'bedrock',
}

/** Throws `route_not_found`. `query` begins with `?` or is empty. */
export function findRoute(method: string, path: string, query: string): GatewayRoute {
  const list = method === 'GET' ? modelLists[path] : undefined
  if (list) return { kind: 'models', family: list }
  const route = method === 'POST' ? (bodyRoutes[path] ?? pathRoute(path, query)) : undefined
  if (!route) throw new AppError('route_not_found', { method, path: path.slice(0, 200) })
  if ('kind' in route) return route
  const { upstream, ...rest } = route
  // Anthropic's library marks the routes of its betas so.
  const beta = rest.family === 'anthropic' && query === '?beta=true' ? query : ''
  return { kind: 'call', ...rest, model: undefined, isStream: undefined, upstream: () => upstream + beta }
}

function pathRoute(path: string, query: string): CallRoute | undefined {
  const [, googleModel, method = ''] = googleCall.exec(path) ?? []
  if (googleModel) {
    const events = new URLSearchParams(query).get('alt') === 'sse' ? '?alt=sse' : ''
    return {
      kind: 'call',
      family: 'google',
      wire: 'google-generate-content',
      model: decode(googleModel),
      upstream: (model) => `/models/${encodeURIComponent(model)}:${method}${events}`,
      isStream: method === 'streamGenerateContent',
      isMetered: method !== 'countTokens',
    }
  }
  const [, bedrockModel, operation = ''] = bedrockCall.exec(path) ?? []
  if (!bedrockModel) return undefined
  return {
    kind: 'call',
    family: 'bedrock',
    wire: 'bedrock-converse',
    model: decode(bedrockModel),
    upstream: (model) => `/model/${encodeURIComponent(model)}/${operation}`,
    isStream: operation === 'converse-stream',
    isMetered: true,
  }
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}

export function familyOfPath(path: string): WireFamily {
  const [, family] = /^\/llm\/(anthropic|google|bedrock)\//.exec(path) ?? []
  return (family as WireFamily | undefined) ?? 'openai'
}
