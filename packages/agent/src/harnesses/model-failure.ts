import { AppError, databaseAwayCodes, type ErrorCode, errorSpecs } from '@openoz/protocol'
import { shortened } from '../live-output.ts'
import {
  answerLimitIn,
  readRefusal,
  retryAfterMs,
  saysContentRefused,
  saysOutOfCredit,
  saysTooLong,
} from './provider-words.ts'

/**
 * What to do about a model call that failed. Everything is decided here:
 *
 * | failure | decision | because |
 * | --- | --- | --- |
 * | the control plane cannot be reached | wait, as long as the lease lives | it may be away for minutes, no run shall notice |
 * | the control plane starts, stops, or has no database | the same | it is away too, only that something answers |
 * | the stream was cut, stood still, or reported an error | retry | nothing of it has been acted upon |
 * | `execution_superseded`, `execution_token_ended` | over | the execution is not ours any more |
 * | the conversation is too long for the model, or for the gateway | shorten | the same request would be refused again, a shorter one not |
 * | more room for the answer was asked for than the model has | shorten | the same, with less room |
 * | the provider refuses the content, or has no credit left | fail | waiting changes nothing |
 * | a code of the gateway that is retryable | retry, after `Retry-After` if given | the gateway says so |
 * | every other code (no provider, wrong key, unknown model, …) | fail | the same request would be refused again |
 * | no code (something between us and the gateway spoke): 408, 409, 429, 5xx | retry | it may pass |
 * | the same: 401, 403 and every other 4xx | fail | somebody must change something |
 * | anything else | fail | it is a bug of ours |
 */
type ModelFailure =
  | Retry
  | { action: 'fail'; error: unknown }
  | { action: 'over'; error: unknown }
  | { action: 'shorten'; error: ConversationTooLong | AnswerRoomTooLarge }

interface Retry {
  action: 'retry'
  problem: string
  afterMs: number | undefined
  /** What the run says when patience has ended. */
  givesUpAs: AppError
  /** Not bounded by `llm_retry_for_ms`. */
  isPatient: boolean
  /** The answer had begun: mostly the connection's fault, and the next one is good. */
  isCut: boolean
}

/** A stream that ended before the model had finished. */
export class CutStream extends Error {
  constructor(problem: string) {
    super(problem)
    this.name = 'CutStream'
  }
}

/** The provider, or the gateway, did not take so long a conversation. */
export class ConversationTooLong extends Error {
  /** Tokens that it would have taken, where it said so. */
  readonly limit: number | undefined

  constructor(limit: number | undefined) {
    super('The conversation is too long for the model.')
    this.limit = limit
  }
}

/** The model cannot give as long an answer as it was asked for. */
export class AnswerRoomTooLarge extends Error {
  /** Tokens. */
  readonly limit: number
  /** What the run says when a smaller room is refused as well. */
  readonly givesUpAs: AppError

  constructor(limit: number, givesUpAs: AppError) {
    super('The model cannot give so long an answer.')
    this.limit = limit
    this.givesUpAs = givesUpAs
  }
}

/**
 * What the libraries throw for a refused request and for an error that a provider reports inside a stream. It also holds the whole prompt, so it
 * must never be logged, or be the cause of an error that is.
 */
interface StatusError extends Error {
  statusCode: number
  responseHeaders?: Record<string, string>
  responseBody?: string
  data?: unknown
}

export function isStatusError(error: unknown): error is StatusError {
  return error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number'
}

export function judgeModelFailure(error: unknown, modelId: string): ModelFailure {
  if (error instanceof AppError && error.code === 'server_unreachable') {
    const problem = 'the control plane cannot be reached'
    return { action: 'retry', problem, afterMs: undefined, givesUpAs: error, isPatient: true, isCut: false }
  }
  if (error instanceof ConversationTooLong) return { action: 'shorten', error }
  if (error instanceof CutStream) return { ...retryAsUnreachable(error.message, modelId), isCut: true }
  if (isStatusError(error)) return judgeAnswer(error, modelId)
  return { action: 'fail', error }
}

function judgeAnswer(error: StatusError, modelId: string): ModelFailure {
  const { statusCode: status, responseHeaders = {} } = error
  const refusal = readRefusal(error.responseBody ?? error.data, error.message)
  const code = responseHeaders['x-oz-error-code'] ?? refusal.problemCode
  const provider = modelId.split('/')[0] ?? modelId
  const said = { provider, modelId, status, problem: shortened(refusal.message, 2_000) }
  const afterMs = retryAfterMs(responseHeaders)
  if (code !== undefined && outages.has(code)) {
    const givesUpAs = new GatewayRefusal(code, said)
    const problem = 'the control plane is not ready'
    return { action: 'retry', problem, afterMs, givesUpAs, isPatient: true, isCut: false }
  }
  if (code === 'execution_superseded' || code === 'execution_token_ended') return { action: 'over', error }

  const isRefusal = status === 400 || status === 413 || status === 422
  const answerLimit = isRefusal ? answerLimitIn(refusal) : undefined
  const rejected = new AppError('model_request_rejected', said)
  if (answerLimit) return { action: 'shorten', error: new AnswerRoomTooLarge(answerLimit, rejected) }
  const tooLong = isRefusal ? saysTooLong(refusal) : undefined
  if (tooLong || status === 413) return { action: 'shorten', error: new ConversationTooLong(tooLong?.limit) }
  // What providers mean by these is often only in their words.
  const isVague = code === undefined || code === 'model_request_rejected' || code === 'model_overloaded'
  if (isVague && saysContentRefused(refusal)) {
    return { action: 'fail', error: new AppError('model_content_refused', { modelId }) }
  }
  if (isVague && (status === 402 || saysOutOfCredit(refusal))) {
    return { action: 'fail', error: new AppError('model_quota_exhausted', { provider, status }) }
  }
  if (code !== undefined) {
    const error = new GatewayRefusal(code, said)
    if (!mayBeRetried(error, responseHeaders['x-should-retry'])) return { action: 'fail', error }
    const problem = code === 'model_overloaded' ? overloaded : 'the model’s provider has a problem'
    return { action: 'retry', problem, afterMs, givesUpAs: error, isPatient: false, isCut: false }
  }

  // The library's word for a stream that could not be read to its end.
  if (status < 400) return { ...retryAsUnreachable('the answer was cut off', modelId), isCut: true }
  if (status === 429 || status === 529 || status === 408 || status === 409) {
    const givesUpAs = new AppError('model_overloaded', { provider, status })
    return { action: 'retry', problem: overloaded, afterMs, givesUpAs, isPatient: false, isCut: false }
  }
  if (status >= 500) return { ...retryAsUnreachable(`it answers ${status}`, modelId), afterMs }
  if (status === 401 || status === 403) {
    return { action: 'fail', error: new AppError('model_provider_rejected', { provider, status }) }
  }
  return { action: 'fail', error: rejected }
}

/** What the control plane says of itself while it is away. */
const outages: ReadonlySet<string> = new Set<ErrorCode>([
  ...databaseAwayCodes,
  ...(['server_starting', 'server_draining'] as const),
])

const overloaded = 'the model is overloaded, or its rate is limited'

/** The gateway's refusal: the registry's code and sentence, and what the provider itself said. */
class GatewayRefusal extends AppError {
  constructor(code: string, said: Said) {
    // A gateway newer than this agent may have codes that are not known here.
    super(Object.hasOwn(errorSpecs, code) ? (code as ErrorCode) : 'model_request_rejected', { ...said })
    if (said.problem !== '') this.message = sentenceOf(this, said)
  }
}

interface Said {
  provider: string
  modelId: string
  /** Of the answer, which is the provider's own unless the gateway spoke itself. */
  status: number
  problem: string
}

/** A provider's words alone ("bad", a trace of its own) do not say who spoke, or what to do. */
function sentenceOf({ code, message }: AppError, { provider, modelId, status, problem }: Said): string {
  const spec = errorSpecs[code]
  // The gateway spoke itself, and has said everything, with details that are not known here.
  if (problem.endsWith(spec.remedy)) return problem
  if (code === 'model_unknown')
    return `The provider ${provider} does not have the model ${modelId} (${status}): ${problem} ${spec.remedy}`
  if (!spec.message.includes('{provider}')) return problem
  return spec.message.includes('{problem}') ? message : `${message} Its words: ${problem}`
}

/** The provider can do nothing with what it was sent. What it means is only in its words, if at all. */
export function isRequestRejected(error: unknown): boolean {
  if (!(error instanceof AppError) || error.code !== 'model_request_rejected') return false
  return error.details.status === 400 || error.details.status === 422
}

function mayBeRetried(refusal: GatewayRefusal, said: string | undefined): boolean {
  return said === undefined ? refusal.spec.retryable : said === 'true'
}

function retryAsUnreachable(problem: string, modelId: string): Retry {
  const provider = modelId.split('/')[0] ?? modelId
  const givesUpAs = new AppError('model_provider_unreachable', { provider, problem })
  return { action: 'retry', problem, afterMs: undefined, givesUpAs, isPatient: false, isCut: false }
}
