import type { ModelInfo } from '@openoz/protocol'
import type { ProviderConnections } from './connections.ts'
import { field, numberIn, textIn } from './json-field.ts'
import type { ModelProvider } from './providers.ts'

/** A model as its provider lists it. */
export interface ListedModel {
  /** The provider's own name for it. */
  name: string
  displayName: string
  /** When it came out, where the provider says so: milliseconds. 0 otherwise. */
  createdAt: number
  contextWindow?: number
  canSee: boolean
  /** Answers prompts with text: the list of OpenAI holds speech, images and embeddings as well. */
  isTextModel: boolean
}

/** `openai` lists hundreds, a router thousands; more than this is no model list. */
const maxListBytes = 16 * 1024 * 1024

/**
 * Asks a provider what it has. An empty list means that it does not say: compatible servers may have no such route. Rejects when it
 * cannot be asked; the message is for people and holds no secret.
 */
export async function fetchModels(
  provider: ModelProvider,
  connections: ProviderConnections,
  timeoutMs: number,
): Promise<ListedModel[]> {
  const signal = AbortSignal.timeout(timeoutMs)
  const url = provider.url('/models')
  if (provider.wire === 'anthropic-messages') url.searchParams.set('limit', '1000')
  try {
    const response = await connections.send({
      method: 'GET',
      url,
      headers: { accept: 'application/json', 'accept-encoding': 'identity', ...provider.credentials() },
      headersTimeoutMs: timeoutMs,
      signal,
    })
    const chunks: Buffer[] = []
    let bytes = 0
    for await (const chunk of response) {
      bytes += (chunk as Buffer).length
      if (bytes > maxListBytes) throw new Error(`its model list is larger than ${maxListBytes} bytes`)
      chunks.push(chunk as Buffer)
    }
    const status = response.statusCode ?? 0
    if (status === 404 || status === 405 || status === 501) return []
    if (status === 401 || status === 403) throw new Error(`it refuses the key (${status})`)
    if (status !== 200) throw new Error(`it answers ${status} when asked for its models`)
    return readList(provider, Buffer.concat(chunks))
  } catch (error) {
    if (signal.aborted) throw new Error(`it does not list its models within ${timeoutMs / 1000} s`, { cause: error })
    throw error
  }
}

function readList(provider: ModelProvider, body: Buffer): ListedModel[] {
  let answer: unknown
  try {
    answer = JSON.parse(body.toString('utf8'))
  } catch (error) {
    throw new Error('its model list is not JSON', { cause: error })
  }
  const items = field(answer, 'data')
  if (!Array.isArray(items)) throw new Error('its model list is not of a known shape')
  return items.flatMap((item: unknown) => {
    const name = textIn(item, 'id')
    return name ? [readModel(provider, name, item)] : []
  })
}

function readModel(provider: ModelProvider, name: string, item: unknown): ListedModel {
  const created = field(item, 'created') ?? field(item, 'created_at')
  const modalities = field(item, 'architecture', 'input_modalities')
  const contextWindow =
    numberIn(item, 'max_model_len') ?? numberIn(item, 'context_length') ?? numberIn(item, 'max_input_tokens')
  return {
    name,
    displayName: textIn(item, 'display_name') || textIn(item, 'name') || name,
    createdAt: typeof created === 'number' ? created * 1000 : Date.parse(String(created)) || 0,
    ...(contextWindow && { contextWindow }),
    canSee: Array.isArray(modalities) ? modalities.includes('image') : isKnownToSee(provider.vendor, name),
    isTextModel: !(provider.vendor === 'OPENAI' && otherOpenAiModels.test(name)),
  }
}

/** What OpenAI lists beside the models that answer text with text. */
const otherOpenAiModels =
  /whisper|tts|dall-e|embedding|moderation|image|audio|realtime|transcribe|translate|sora|babbage|davinci|instruct|search/

/**
 * Only what the vendors document: every Claude since version 3, and these families of OpenAI. A list that says more itself is asked
 * first; for all other models nobody knows, so the answer is no.
 */
function isKnownToSee(vendor: ModelInfo['provider'], name: string): boolean {
  if (vendor === 'ANTHROPIC') return /^claude-/.test(name) && !/^claude-(2|instant)/.test(name)
  if (vendor === 'OPENAI') return /^(gpt-4o|gpt-4\.1|gpt-4-turbo|gpt-[5-9]|o1(?!-mini)|o3(?!-mini)|o4)/.test(name)
  return false
}
