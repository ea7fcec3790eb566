import type { IncomingMessage } from 'node:http'
import { AppError, type ErrorCode } from '@openoz/protocol'
import type { ResolvedModel } from './catalog.ts'
import { textIn } from './json-field.ts'

/** A provider's answer that is no success, as an error of ours. */
export interface UpstreamRefusal {
  error: AppError
  /** Where the provider's own status says more to its client libraries than ours. */
  status?: number
  /** The provider's word on when to come back. */
  headers: Record<string, string>
  /** The provider does not know the option with which usage is asked for. */
  isAboutUsageOption: boolean
}

/** Providers explain themselves in a line; some quote the whole request back. */
const maxProblemBytes = 2048
const maxBodyBytes = 64 * 1024
const maxBodyMs = 5_000

/** Reads the body of the answer. Never rejects: one that breaks off explains less. */
export async function readRefusal(
  response: IncomingMessage,
  { provider, access }: ResolvedModel,
  usable: () => Promise<string>,
): Promise<UpstreamRefusal> {
  const status = response.statusCode ?? 0
  const body = await readHead(response)
  const problem = cut(provider.mask(readMessage(body) || 'it gave no reason'))
  const code = codeOf(status, body, problem)
  const details =
    code === 'model_unknown'
      ? { modelId: access.id, usable: await usable() }
      : { provider: provider.name, status, problem: status >= 300 && status < 400 ? redirects : problem }

  const headers: Record<string, string> = {}
  for (const name of ['retry-after', 'retry-after-ms']) {
    const value = response.headers[name]
    if (typeof value === 'string') headers[name] = value
  }
  return {
    error: new AppError(code, details),
    ...((code === 'model_overloaded' || code === 'model_quota_exhausted') && { status }),
    headers,
    isAboutUsageOption: (status === 400 || status === 422) && /stream_options|include_usage/.test(body),
  }
}

function codeOf(status: number, body: string, problem: string): ErrorCode {
  // Out of credit looks like a rate limit or a bad request, but waiting does not help.
  if (status === 402 || /insufficient_quota|credit balance is too low/.test(body)) return 'model_quota_exhausted'
  if (status === 401 || status === 403) return 'model_provider_rejected'
  // 529 is Anthropic's.
  if (status === 429 || status === 503 || status === 529) return 'model_overloaded'
  // A 404 may also come of a wrong base address; then nobody speaks of a model.
  if (status === 404 && /model/i.test(problem)) return 'model_unknown'
  if (status >= 500 || status === 408) return 'model_provider_failed'
  return 'model_request_rejected'
}

const redirects = 'it redirects elsewhere, where its key must not go; set its base address to the final one.'

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

/** OpenAI and Anthropic: `{error:{message}}`; Ollama: `{error}`; vLLM: `{message}`; FastAPI: `{detail}`. A web page explains nothing. */
function readMessage(body: string): string {
  try {
    const answer: unknown = JSON.parse(body)
    const message = textIn(answer, 'error', 'message') || textIn(answer, 'error') || textIn(answer, 'message')
    return message || textIn(answer, 'detail') || cut(body)
  } catch {
    return /^\s*</.test(body) ? '' : body.trim()
  }
}

function cut(text: string): string {
  if (Buffer.byteLength(text) <= maxProblemBytes) return text
  // A character that the cut goes through becomes U+FFFD and is dropped.
  return `${Buffer.from(text).subarray(0, maxProblemBytes).toString('utf8').replace(/�+$/, '')}…`
}
