import type { ProviderConnections } from './connections.ts'
import { field, numberIn, textIn } from './json-field.ts'
import { findKnownModel } from './known-models.ts'
import type { ModelProvider } from './model-provider.ts'

/** A model as its provider lists it. */
export interface ListedModel {
  /** The provider's own name for it. */
  name: string
  displayName: string
  /** When it came out, where the provider says so: milliseconds. 0 otherwise. */
  createdAt: number
  contextWindow?: number
  /** It takes images; absent when nobody says. */
  canSee?: boolean
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
  const { listUrl } = provider
  if (!listUrl) return []
  const signal = AbortSignal.timeout(timeoutMs)
  try {
    const response = await connections.send({
      method: 'GET',
      url: listUrl,
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
    const body = Buffer.concat(chunks)
    if (status === 404 || status === 405 || status === 501) return []
    if (status === 401 || status === 403 || isBadGoogleKey(status, body))
      throw new Error(`it refuses the key (${status})`)
    if (status !== 200) throw new Error(`it answers ${status} when asked for its models`)
    return provider.lists === 'none' ? [] : readList(provider, body)
  } catch (error) {
    if (signal.aborted) throw new Error(`it does not list its models within ${timeoutMs / 1000} s`, { cause: error })
    throw error
  }
}

/** Google's word for a wrong key is 400. */
function isBadGoogleKey(status: number, body: Buffer): boolean {
  return status === 400 && body.includes('API_KEY_INVALID')
}

/** `data` is OpenAI's and Anthropic's, `models` Google's, `modelSummaries` Amazon's. */
function readList(provider: ModelProvider, body: Buffer): ListedModel[] {
  let answer: unknown
  try {
    answer = JSON.parse(body.toString('utf8'))
  } catch (error) {
    throw new Error('its model list is not JSON', { cause: error })
  }
  const items = field(answer, 'data') ?? field(answer, 'models') ?? field(answer, 'modelSummaries')
  if (!Array.isArray(items)) throw new Error('its model list is not of a known shape')
  return items.flatMap((item: unknown) => {
    const name = textIn(item, 'id') || textIn(item, 'modelId') || textIn(item, 'name').replace(/^models\//, '')
    return name ? [readModel(provider, name, item)] : []
  })
}

function readModel({ kind, vendor }: ModelProvider, name: string, item: unknown): ListedModel {
  const created = field(item, 'created') ?? field(item, 'created_at')
  const modalities = field(item, 'architecture', 'input_modalities') ?? field(item, 'inputModalities')
  const known = findKnownModel(kind, name)
  const contextWindow =
    numberIn(item, 'max_model_len') ??
    numberIn(item, 'context_length') ??
    numberIn(item, 'max_input_tokens') ??
    numberIn(item, 'inputTokenLimit') ??
    known.contextWindow
  const canSee = Array.isArray(modalities) ? /image/i.test(modalities.join()) : known.canSee
  return {
    name,
    displayName:
      textIn(item, 'display_name') ||
      textIn(item, 'displayName') ||
      textIn(item, 'modelName') ||
      textIn(item, 'name') ||
      name,
    createdAt: typeof created === 'number' ? created * 1000 : Date.parse(String(created)) || 0,
    ...(contextWindow && { contextWindow }),
    ...(canSee !== undefined && { canSee }),
    isTextModel:
      !(vendor === 'OPENAI' && otherOpenAiModels.test(name)) && isCallable(item) && !otherGeminis(kind, name),
  }
}

/** What OpenAI lists beside the models that answer text with text. */
const otherOpenAiModels =
  /whisper|tts|dall-e|embedding|moderation|image|audio|realtime|transcribe|translate|sora|babbage|davinci|instruct|search/

/** Google's list says what each model can do, and Amazon's how it can be called: one that needs a profile is not called by this name. */
function isCallable(item: unknown): boolean {
  const methods = field(item, 'supportedGenerationMethods')
  const types = field(item, 'inferenceTypesSupported')
  if (Array.isArray(methods)) return methods.includes('generateContent')
  return !Array.isArray(types) || types.includes('ON_DEMAND')
}

/** They answer with sound or pictures, and are called the same way. */
function otherGeminis(kind: ModelProvider['kind'], name: string): boolean {
  return kind === 'google' && /image|tts|audio|live|embedding|aqa|robotics|computer-use/.test(name)
}
