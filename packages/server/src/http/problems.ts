import { randomUUID } from 'node:crypto'
import { AppError, type ErrorDetails, type Problem } from '@openoz/protocol'
import { HTTPException } from 'hono/http-exception'
import type { Logger } from 'pino'
import { ZodError } from 'zod'
import { databaseUnreachable, isDatabaseAway, isDatabaseFull, isValueRefused } from '../store/database.ts'

/** The one place where an error becomes an answer: RFC 7807 with the reference's extensions. */
export function toProblem(log: Logger, error: unknown, publicUrl: string, path: string): Problem {
  const traceId = randomUUID()
  const known = toAppError(error, traceId)
  if (known.code === 'internal_error') log.error({ error, traceId, path }, 'unexpected error')
  const { status, title, platform, retryable } = known.spec
  return {
    type: `${publicUrl}/errors/${known.code}`,
    title,
    status,
    detail: known.message,
    instance: path,
    error: platform,
    code: known.code,
    message: known.message,
    retryable,
    trace_id: traceId,
    ...(known.issues ? { issues: known.issues } : {}),
  }
}

/** With what the published SDKs go by before they look at the status. */
export function problemAnswer(body: Problem): Response {
  return new Response(JSON.stringify(body), {
    status: body.status,
    headers: {
      'content-type': 'application/problem+json',
      'x-should-retry': String(body.retryable),
      ...(body.status === 429 || body.status === 503 ? { 'retry-after': '1' } : {}),
    },
  })
}

type WithIssues = AppError & { issues?: Problem['issues'] }

function toAppError(error: unknown, traceId: string): WithIssues {
  if (error instanceof AppError) return error
  if (error instanceof ZodError) return invalidRequest(error)
  if (error instanceof HTTPException) return httpException(error)
  if (isDatabaseAway(error)) return databaseUnreachable(error)
  if (isDatabaseFull(error))
    return new AppError('database_full', { problem: (error as Error).message }, { cause: error })
  if (isValueRefused(error))
    return new AppError(
      'invalid_request',
      { problem: `A value cannot be used: ${(error as Error).message}.` },
      { cause: error },
    )
  return new AppError('internal_error', { traceId }, { cause: error })
}

/** What hono itself refuses: a body that is no JSON, or one that is too large. */
function httpException(error: HTTPException): AppError {
  if (error.status === 413) return new AppError('body_too_large', {}, { cause: error })
  // Of its types; those that are no JSON at all were refused before.
  if (error.status === 415)
    return new AppError('content_type_unsupported', { contentType: 'not what this route takes' }, { cause: error })
  return new AppError('json_malformed', { problem: error.message }, { cause: error })
}

/** Where the request did not fit, in words that name the field: unknown keys by their name. */
export function invalidRequest(error: ZodError): WithIssues {
  const issues = error.issues.map((issue) => ({ path: issue.path.join('.'), message: issue.message }))
  const first = issues[0]
  const details: ErrorDetails = {
    problem: first ? `${first.path === '' ? 'The request' : first.path}: ${first.message}.` : 'It does not fit.',
  }
  return Object.assign(new AppError('invalid_request', details, { cause: error }), { issues })
}
