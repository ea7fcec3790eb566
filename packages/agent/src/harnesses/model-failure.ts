import { AppError, type ErrorCode, errorSpecs, type Problem } from '@openoz/protocol'

/**
 * What to do about a model call that failed. Everything is decided here:
 *
 * | failure | decision | because |
 * | --- | --- | --- |
 * | the control plane cannot be reached | wait, as long as the lease lives | it may be away for minutes, no run shall notice |
 * | the stream was cut, stood still, or reported an error | retry | nothing of it has been acted upon |
 * | a problem that is `retryable` (overloaded, provider unreachable, …) | retry, after `Retry-After` if given | the gateway says so |
 * | `execution_superseded`, `execution_token_ended` | over | the execution is not ours any more |
 * | every other problem (no provider, wrong key, unknown model, …) | fail | the same request would be refused again |
 * | no problem document (something between us and the gateway spoke): 408, 409, 429, 5xx | retry | it may pass |
 * | the same: 401, 403 and every other 4xx | fail | somebody must change something |
 * | anything else | fail | it is a bug of ours |
 */
type ModelFailure = Retry | { action: 'fail'; error: unknown } | { action: 'over'; error: unknown }

interface Retry {
  action: 'retry'
  problem: string
  afterMs: number | undefined
  /** What the run says when patience has ended. */
  givesUpAs: AppError
  /** Not bounded by `llm_retry_for_ms`. */
  isPatient: boolean
}

/** A stream that ended before the model had finished. */
export class CutStream extends Error {
  constructor(problem: string) {
    super(problem)
    this.name = 'CutStream'
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
}

export function isStatusError(error: unknown): error is StatusError {
  return error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number'
}

export function judgeModelFailure(error: unknown, modelId: string): ModelFailure {
  if (error instanceof AppError && error.code === 'server_unreachable') {
    return {
      action: 'retry',
      problem: 'the control plane cannot be reached',
      afterMs: undefined,
      givesUpAs: error,
      isPatient: true,
    }
  }
  if (error instanceof CutStream) return retryAsUnreachable(error.message, modelId)
  if (isStatusError(error)) return judgeAnswer(error, modelId)
  return { action: 'fail', error }
}

function judgeAnswer(error: StatusError, modelId: string): ModelFailure {
  const { statusCode: status, responseHeaders, responseBody } = error
  // The library's word for a stream that could not be read to its end.
  if (status < 400) return retryAsUnreachable('the answer was cut off', modelId)
  const afterMs = retryAfterMs(responseHeaders)
  const problem = readProblem(responseBody)
  if (problem?.code === 'execution_superseded' || problem?.code === 'execution_token_ended') {
    return { action: 'over', error }
  }
  if (problem) {
    const refusal = new GatewayRefusal(problem)
    if (!problem.retryable) return { action: 'fail', error: refusal }
    const what = problem.code === 'model_overloaded' ? overloaded : 'the model’s provider has a problem'
    return { action: 'retry', problem: what, afterMs, givesUpAs: refusal, isPatient: false }
  }

  const provider = providerOf(modelId)
  if (status === 429 || status === 529 || status === 408 || status === 409) {
    const givesUpAs = new AppError('model_overloaded', { provider, status })
    return { action: 'retry', problem: overloaded, afterMs, givesUpAs, isPatient: false }
  }
  if (status >= 500) return { ...retryAsUnreachable(`it answers ${status}`, modelId), afterMs }
  if (status === 401 || status === 403) {
    return { action: 'fail', error: new AppError('model_provider_rejected', { provider, status }) }
  }
  const said = error.message.slice(0, 500)
  return { action: 'fail', error: new AppError('model_request_rejected', { provider, status, problem: said }) }
}

const overloaded = 'the model is overloaded, or its rate is limited'

function providerOf(modelId: string): string {
  return modelId.split('/')[0] ?? modelId
}

/** The gateway's refusal: the code of the registry, with the gateway's own words. */
class GatewayRefusal extends AppError {
  constructor(problem: Problem) {
    // A gateway newer than this agent may have codes that are not known here.
    super(problem.code in errorSpecs ? (problem.code as ErrorCode) : 'model_request_rejected')
    this.message = problem.detail
  }
}

function retryAsUnreachable(problem: string, modelId: string): Retry {
  const givesUpAs = new AppError('model_provider_unreachable', { provider: providerOf(modelId), problem })
  return { action: 'retry', problem, afterMs: undefined, givesUpAs, isPatient: false }
}

function readProblem(body: string | undefined): Problem | undefined {
  try {
    const value: unknown = JSON.parse(body ?? '')
    const isProblem =
      typeof value === 'object' && value !== null && 'code' in value && 'detail' in value && 'title' in value
    return isProblem ? (value as Problem) : undefined
  } catch {
    return undefined
  }
}

/** `Retry-After` is seconds or a date; `retry-after-ms` is what some providers send beside it. */
function retryAfterMs(headers: Record<string, string> = {}): number | undefined {
  const exact = Number(headers['retry-after-ms'])
  if (Number.isFinite(exact) && exact >= 0) return exact
  const value = headers['retry-after']
  if (value === undefined) return undefined
  const ms = /^\d+(\.\d+)?$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) ? Math.max(ms, 0) : undefined
}
