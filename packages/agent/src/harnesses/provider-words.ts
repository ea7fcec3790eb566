/** What providers say when they refuse a request, in each one's own words. */

export interface Refusal {
  message: string
  /** Everything that was said, in lower case: where the words to look for stand differs. */
  text: string
  /** Of the control plane's own problem documents (RFC 7807). */
  problemCode: string | undefined
}

/** OpenAI, Anthropic and Google: `{error: {message, …}}`; Bedrock: `{message}`. Takes the body as text or already read. */
export function readRefusal(body: unknown, fallback: string): Refusal {
  const text = typeof body === 'string' ? body : safeJson(body)
  const value = parsed(body)
  return {
    message: messageIn(value) ?? fallback,
    text: `${text} ${fallback}`.slice(0, 20_000).toLowerCase(),
    problemCode: problemCodeOf(value),
  }
}

function problemCodeOf(value: unknown): string | undefined {
  const isProblem =
    typeof value === 'object' && value !== null && 'detail' in value && 'title' in value && 'code' in value
  return isProblem && typeof value.code === 'string' ? value.code : undefined
}

function safeJson(value: unknown): string {
  try {
    return JSON.stringify(value) ?? ''
  } catch {
    return ''
  }
}

function parsed(body: unknown): unknown {
  if (typeof body !== 'string') return body
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}

function messageIn(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if ('error' in value && typeof value.error === 'object') return messageIn(value.error)
  if ('error' in value && typeof value.error === 'string') return value.error
  return 'message' in value && typeof value.message === 'string' ? value.message : undefined
}

/**
 * Collected from Anthropic, OpenAI, Google, Bedrock, Mistral, Groq, xAI, vLLM, llama.cpp and Ollama. There is no code for it that all of them
 * have.
 */
const tooLong = [
  'context_length_exceeded',
  'context_window_exceeded',
  'exceed_context_size',
  'maximum context length',
  'maximum prompt length',
  'prompt is too long',
  'input is too long',
  'prompt too long',
  'exceed context limit',
  'exceeds the context',
  'exceeds the available context',
  'context window',
  'context length is only',
  'exceeds the maximum number of tokens',
  'reduce the length of the messages',
  'too many tokens',
  'request_too_large',
  'body_too_large',
]

/** Whether the conversation was too long, and what would have fit. */
export function saysTooLong({ text }: Refusal): { limit: number | undefined } | undefined {
  if (!tooLong.some((words) => text.includes(words))) return undefined
  const limit =
    /(?:maximum context length (?:is|of)|maximum prompt length is|context length is only|tokens allowed \()\s*(\d{3,})/.exec(
      text,
    )?.[1] ?? />\s*(\d{3,}) maximum/.exec(text)?.[1]
  return { limit: limit === undefined ? undefined : Number(limit) }
}

/** The longest answer that the model can give, where a request is refused for asking for a longer one. OpenAI, Anthropic, Bedrock. */
export function answerLimitIn({ text }: Refusal): number | undefined {
  const limit =
    /supports at most (\d+) (?:completion|output) tokens/.exec(text)?.[1] ??
    /max_tokens: \d+ > (\d+)/.exec(text)?.[1] ??
    /exceeds the model limit of (\d+)/.exec(text)?.[1]
  return limit === undefined ? undefined : Number(limit)
}

export function saysContentRefused({ text }: Refusal): boolean {
  return /content_policy_violation|content_filter|responsibleaipolicyviolation|"prohibited_content"|content management policy/.test(
    text,
  )
}

export function saysOutOfCredit({ text }: Refusal): boolean {
  return /insufficient_quota|credit balance is too low|billing_error|billing_hard_limit|insufficient_credits|payment required/.test(
    text,
  )
}

/** `Retry-After` is seconds or a date; `retry-after-ms` is what some providers send beside it. */
export function retryAfterMs(headers: Record<string, string>): number | undefined {
  const exact = Number.parseFloat(headers['retry-after-ms'] ?? '')
  if (Number.isFinite(exact) && exact >= 0) return exact
  const value = headers['retry-after']
  if (value === undefined) return undefined
  const ms = /^\d+(\.\d+)?$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) ? Math.max(ms, 0) : undefined
}
