import type { AgentLimits, ModelAccess } from '@openoz/protocol'
import type { LanguageModel, streamText } from 'ai'
import type { ModelGateway } from './harness.ts'
import { withSilenceLimit } from './silence-limit.ts'

type ProviderOptions = NonNullable<Parameters<typeof streamText>[0]['providerOptions']>

export interface ReachableModel {
  model: LanguageModel
  providerOptions: ProviderOptions
  /**
   * Put on the instructions and where requests end: everything up to there is the same in the next step, and need not be read again. Absent for
   * providers that see that by themselves.
   */
  cachePoint?: ProviderOptions
  /** To be emptied before each request. `brokenBy`: why the answer's stream broke. `heardAt`: when its last byte came, by the process's clock. */
  connection: { brokenBy?: unknown; heardAt?: number | undefined }
}

/** Never looked up: the gateway's fetch takes the path alone, and brings it to wherever the control plane is. */
const gatewayOrigin = 'http://gateway.invalid'

/**
 * The model behind the gateway, over the wire that the control plane chose. The libraries decide by a model's bare name what it can do, so they
 * are given that; the gateway is given the full id, so the name is put back into each request. A run loads the library of its own wire alone.
 */
export async function reachModel(
  access: ModelAccess,
  { gateway, limits }: { gateway: ModelGateway; limits: AgentLimits },
): Promise<ReachableModel> {
  const { id, wire, base_path } = access
  const name = id.slice(id.indexOf('/') + 1)
  const connection: ReachableModel['connection'] = {}
  const fetch = withSilenceLimit(gatewayFetch(gateway, access), {
    limitMs: limits.llm_idle_timeout_ms,
    onBroken: (error) => {
      connection.brokenBy = error
    },
    onHeard: () => {
      connection.heardAt = performance.now()
    },
  })
  const settings = { baseURL: `${gatewayOrigin}${base_path}`, apiKey: gateway.token, fetch }
  switch (wire) {
    case 'anthropic-messages': {
      const { createAnthropic } = await import('@ai-sdk/anthropic')
      const cachePoint = { anthropic: { cacheControl: { type: 'ephemeral' } } }
      const providerOptions = { anthropic: { thinking: { type: 'adaptive', display: 'summarized' } } }
      const model = createAnthropic(settings)(name)
      return { connection, model, providerOptions: thinksAsNeeded(name) ? providerOptions : {}, cachePoint }
    }
    case 'openai-responses': {
      const { createOpenAI } = await import('@ai-sdk/openai')
      // The conversation is ours; nothing of it shall stay with the provider.
      return {
        connection,
        model: createOpenAI(settings).responses(name),
        providerOptions: { openai: { store: false } },
      }
    }
    case 'openai-chat': {
      const { createOpenAICompatible } = await import('@ai-sdk/openai-compatible')
      const provider = createOpenAICompatible({ ...settings, name: 'gateway', includeUsage: true })
      return { connection, model: provider(name), providerOptions: {} }
    }
    case 'google-generate-content': {
      const { createGoogle } = await import('@ai-sdk/google')
      const providerOptions = { google: { thinkingConfig: { includeThoughts: true } } }
      return { connection, model: createGoogle(settings)(name), providerOptions: canThink(name) ? providerOptions : {} }
    }
    case 'bedrock-converse': {
      const { createAmazonBedrock } = await import('@ai-sdk/amazon-bedrock')
      // Nothing is signed, so the region decides nothing: the gateway knows where its provider is.
      const provider = createAmazonBedrock({ ...settings, region: 'us-east-1' })
      const cachePoint = { bedrock: { cachePoint: { type: 'default' } } }
      return { connection, model: provider(name), providerOptions: {}, ...(canCache(name) ? { cachePoint } : {}) }
    }
    default:
      return wire satisfies never
  }
}

/**
 * Claude from 4.6 on decides by itself how long to think. Older models want a budget, and then refuse every conversation in which an answer with
 * calls has no thoughts, as one that another model began.
 */
function thinksAsNeeded(name: string): boolean {
  return /^claude-[a-z]+-(4-([6-9]|\d\d)|[5-9])(-|$)/.test(name)
}

/** Gemini before 2.5 refuses to be asked for its thoughts. */
function canThink(name: string): boolean {
  return /^gemini-(2\.5|[3-9])/.test(name)
}

/** Models of other makers on Bedrock refuse a request that has cache points. */
function canCache(name: string): boolean {
  return /anthropic\.claude|amazon\.nova/.test(name)
}

function gatewayFetch({ fetch }: ModelGateway, { id, wire, base_path }: ModelAccess): typeof globalThis.fetch {
  const isNamedInPath = wire === 'google-generate-content' || wire === 'bedrock-converse'
  return async (target, init = {}) => {
    const url = new URL(target instanceof Request ? target.url : target)
    if (isNamedInPath) return fetch(withModelInPath(url.pathname, { id, base_path }) + url.search, init)
    const body = typeof init.body === 'string' ? withModel(init.body, id) : init.body
    return fetch(url.pathname + url.search, { ...init, body })
  }
}

function withModel(body: string, model: string): string {
  return JSON.stringify({ ...(JSON.parse(body) as object), model })
}

/** `/models/NAME:method` and `/model/NAME/method`: the name becomes the full id, as one segment. */
function withModelInPath(path: string, { id, base_path }: Pick<ModelAccess, 'id' | 'base_path'>): string {
  const below = path.slice(base_path.length)
  const parts = /^\/(models?)\/.*?([:/](?:streamGenerateContent|converse-stream))$/.exec(below)
  return parts ? `${base_path}/${parts[1]}/${encodeURIComponent(id)}${parts[2]}` : path
}
