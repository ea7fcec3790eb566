import type { IncomingMessage } from 'node:http'
import type { ErrorCode } from '@openoz/protocol'
import type { ClientError } from './gateway-errors.ts'
import { field, textIn } from './json-field.ts'
import type { ModelProvider } from './model-provider.ts'

/** A provider's answer that is no success. */
export interface UpstreamRefusal {
  error: ClientError
  /** The provider's word on when to come back, and its name for the request. */
  headers: Record<string, string>
  /** The provider does not know the option with which usage is asked for. */
  isAboutUsageOption: boolean
}

/** Providers explain themselves in a line; some quote the whole request back. */
const maxProblemBytes = 2048
const maxBodyBytes = 64 * 1024
const maxBodyMs = 5_000

/** Reads the body of the answer. Never rejects: one that breaks off explains less. */
export async function readRefusal(response: IncomingMessage, provider: ModelProvider): Promise<UpstreamRefusal> {
  const upstreamStatus = response.statusCode ?? 0
  const body = await readHead(response)
  const answer = parse(body)
  const isRedirect = upstreamStatus >= 300 && upstreamStatus < 400
  const said = isRedirect ? redirects : readMessage(answer, body) || `${provider.name} gave no reason`
  const message = cut(provider.mask(said))

  const headers: Record<string, string> = {}
  for (const name of ['retry-after', 'retry-after-ms', 'request-id', 'x-request-id', 'x-amzn-requestid']) {
    const value = response.headers[name]
    if (typeof value === 'string') headers[name] = value
  }
  return {
    error: {
      code: codeOf(upstreamStatus, body, message),
      // A client that followed a redirect would take its key to another host.
      status: isRedirect || upstreamStatus < 300 ? 400 : upstreamStatus,
      message,
      provider: readWords(provider, response, answer),
    },
    headers,
    isAboutUsageOption: (upstreamStatus === 400 || upstreamStatus === 422) && /stream_options|include_usage/.test(body),
  }
}

/** The machine's half of what it said: short words, the same for everybody. */
function readWords(
  provider: ModelProvider,
  { headers }: IncomingMessage,
  answer: unknown,
): NonNullable<ClientError['provider']> {
  const error = field(answer, 'error')
  // `ThrottlingException:http://…`
  const amazonType = String(headers['x-amzn-errortype'] ?? '').split(':', 1)[0] ?? ''
  const words = {
    type: textIn(error, 'type') || amazonType,
    code: textIn(error, 'code'),
    status: textIn(error, 'status'),
    param: textIn(error, 'param'),
  }
  const kept = Object.entries(words).filter(([, word]) => word !== '' && word.length <= 200)
  return {
    ...Object.fromEntries(kept.map(([name, word]) => [name, provider.mask(word)])),
    ...(Array.isArray(field(error, 'details')) && { details: maskAll(provider, field(error, 'details')) }),
  }
}

function maskAll(provider: ModelProvider, value: unknown): unknown {
  return JSON.parse(provider.mask(JSON.stringify(value)))
}

function codeOf(status: number, body: string, problem: string): ErrorCode {
  // Out of credit looks like a rate limit or a bad request, but waiting does not help.
  if (status === 402 || /insufficient_quota|credit balance is too low/.test(body)) return 'model_quota_exhausted'
  // Google's word for a wrong key is 400.
  if (status === 401 || status === 403 || body.includes('API_KEY_INVALID')) return 'model_provider_rejected'
  // 529 is Anthropic's.
  if (status === 429 || status === 529) return 'model_overloaded'
  // A 404 may also come of a wrong base address; then nobody speaks of a model.
  if (status === 404 && /model/i.test(problem)) return 'model_unknown'
  if (status >= 500 || status === 408) return 'model_provider_failed'
  return 'model_request_rejected'
}

const redirects = 'The provider redirects elsewhere, where its key must not go; set its base address to the final one.'

async function readHead(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  const timer = setTimeout(() => response.destroy(), maxBodyMs)
  try {
    for await (const chunk of response) {
      chunks.push(chunk as Buffer)
      bytes += (chunk as Buffer).length
      if (bytes >= maxBodyBytes) break
    }
  } catch {
    // What has come is enough.
  } finally {
    clearTimeout(timer)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parse(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}

/** OpenAI, Anthropic, Google: `{error:{message}}`; Ollama: `{error}`; vLLM, Amazon: `{message}`; FastAPI: `{detail}`. A web page explains nothing. */
function readMessage(answer: unknown, body: string): string {
  if (answer === undefined) return /^\s*</.test(body) ? '' : body.trim()
  const message =
    textIn(answer, 'error', 'message') ||
    textIn(answer, 'error') ||
    textIn(answer, 'message') ||
    textIn(answer, 'Message') ||
    textIn(answer, 'detail')
  return message || (body.trim() === '{}' ? '' : cut(body))
}

function cut(text: string): string {
  if (Buffer.byteLength(text) <= maxProblemBytes) return text
  // A character that the cut goes through becomes U+FFFD and is dropped.
  return `${Buffer.from(text).subarray(0, maxProblemBytes).toString('utf8').replace(/�+$/, '')}…`
}
