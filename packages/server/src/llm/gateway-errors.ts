import { STATUS_CODES } from 'node:http'
import type { ErrorCode } from '@openoz/protocol'
import type { WireFamily } from './gateway-routes.ts'

/** An error on its way to a client library, which knows its vendor's errors and no others. */
export interface ClientError {
  /** Ours; travels as `x-oz-error-code`. */
  code: ErrorCode
  status: number
  message: string
  /** What the provider itself said, where it said something: its own words are kept. */
  provider?: { type?: string; code?: string; status?: string; param?: string; details?: unknown }
}

/** The body in the family's shape. */
export function errorBody(family: WireFamily, { code, status, message, provider }: ClientError): unknown {
  switch (family) {
    case 'openai':
      return {
        error: {
          message,
          type: provider?.type ?? openAiType(status),
          param: provider?.param ?? null,
          code: provider?.code ?? (provider ? null : code),
        },
      }
    case 'anthropic':
      return { type: 'error', error: { type: provider?.type ?? anthropicType(status), message } }
    case 'google': {
      const details = provider?.details
      const word = provider?.status ?? googleStatus(status)
      return { error: { code: status, message, status: word, ...(Array.isArray(details) && { details }) } }
    }
    case 'bedrock':
      return { message }
    default:
      return family satisfies never
  }
}

export function errorHeaders(family: WireFamily, { status, provider }: ClientError): Record<string, string> {
  return family === 'bedrock' ? { 'x-amzn-errortype': provider?.type ?? bedrockType(status) } : {}
}

function openAiType(status: number): string {
  if (status === 429) return 'rate_limit_error'
  return status >= 500 ? 'server_error' : 'invalid_request_error'
}

/** docs.claude.com/en/api/errors */
function anthropicType(status: number): string {
  const types: Record<number, string> = {
    401: 'authentication_error',
    403: 'permission_error',
    404: 'not_found_error',
    413: 'request_too_large',
    429: 'rate_limit_error',
    529: 'overloaded_error',
  }
  return types[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error')
}

/** cloud.google.com/apis/design/errors */
function googleStatus(status: number): string {
  const words: Record<number, string> = {
    401: 'UNAUTHENTICATED',
    403: 'PERMISSION_DENIED',
    404: 'NOT_FOUND',
    429: 'RESOURCE_EXHAUSTED',
    500: 'INTERNAL',
    502: 'UNAVAILABLE',
    503: 'UNAVAILABLE',
    504: 'DEADLINE_EXCEEDED',
  }
  return words[status] ?? (status >= 500 ? 'INTERNAL' : 'INVALID_ARGUMENT')
}

/** docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_Errors */
function bedrockType(status: number): string {
  const types: Record<number, string> = {
    401: 'AccessDeniedException',
    403: 'AccessDeniedException',
    404: 'ResourceNotFoundException',
    429: 'ThrottlingException',
    502: 'ServiceUnavailableException',
    503: 'ServiceUnavailableException',
  }
  return types[status] ?? (status >= 500 ? 'InternalServerException' : 'ValidationException')
}

/** Statuses that client libraries understand, where ours is meant for people. */
export function statusForClients(code: ErrorCode, status: number): number {
  // A model that does not exist is a 404 to all of them; 400 is what they take for a mistake in the body.
  return code === 'model_unknown' ? 404 : status in STATUS_CODES ? status : 500
}
