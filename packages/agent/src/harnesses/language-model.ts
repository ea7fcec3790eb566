import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import type { ModelAccess } from '@openoz/protocol'
import type { LanguageModel, streamText } from 'ai'
import type { ModelGateway } from './harness.ts'

type ProviderOptions = NonNullable<Parameters<typeof streamText>[0]['providerOptions']>

export interface ReachableModel {
  model: LanguageModel
  providerOptions: ProviderOptions
  /**
   * Put on the instructions and on the last message: everything up to there is the same in the next step, and need not be read again. Absent for
   * providers that see that by themselves.
   */
  cachePoint?: ProviderOptions
}

/** Never looked up: the gateway's fetch takes the path alone, and brings it to wherever the control plane is. */
const gatewayOrigin = 'http://gateway.invalid'

/**
 * The model behind the gateway, over the wire that the control plane chose. The libraries decide by a model's bare name what it can do, so they
 * are given that; the gateway is given the full id, so the name is put back into each request.
 */
export function reachModel(access: ModelAccess, gateway: ModelGateway): ReachableModel {
  const { id, wire, base_path } = access
  const name = id.slice(id.indexOf('/') + 1)
  const fetch = gatewayFetch(gateway, id)
  const apiKey = gateway.token
  switch (wire) {
    case 'anthropic-messages': {
      const provider = createAnthropic({ baseURL: `${gatewayOrigin}${base_path}`, apiKey, fetch })
      const cachePoint = { anthropic: { cacheControl: { type: 'ephemeral' } } }
      return { model: provider(name), providerOptions: {}, cachePoint }
    }
    case 'openai-responses': {
      const provider = createOpenAI({ baseURL: `${gatewayOrigin}${base_path}`, apiKey, fetch })
      // The conversation is ours; nothing of it shall stay with the provider.
      return { model: provider.responses(name), providerOptions: { openai: { store: false } } }
    }
    case 'openai-chat': {
      const baseURL = `${gatewayOrigin}${base_path}`
      const provider = createOpenAICompatible({ name: 'gateway', baseURL, apiKey, fetch, includeUsage: true })
      return { model: provider(name), providerOptions: {} }
    }
    default:
      return wire satisfies never
  }
}

function gatewayFetch({ fetch }: ModelGateway, modelId: string): typeof globalThis.fetch {
  return async (target, init = {}) => {
    const url = new URL(target instanceof Request ? target.url : target)
    const body = typeof init.body === 'string' ? withModel(init.body, modelId) : init.body
    return fetch(url.pathname + url.search, { ...init, body })
  }
}

function withModel(body: string, model: string): string {
  return JSON.stringify({ ...(JSON.parse(body) as object), model })
}
