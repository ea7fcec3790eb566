import type { AppError, Problem } from '@openoz/protocol'

/**
 * An error as the clients of the providers' wires get it: the same RFC 7807 problem as everywhere. `status` and `headers` keep what a
 * provider has said (429, 529, `retry-after`).
 */
export function problemResponse(
  error: AppError,
  { status = error.spec.status, headers = {} }: { status?: number; headers?: Record<string, string> } = {},
): Response {
  const problem: Problem = {
    type: 'about:blank',
    title: error.spec.title,
    status,
    detail: error.message,
    error: error.spec.platform,
    code: error.code,
    message: error.message,
    retryable: error.spec.retryable,
  }
  return new Response(JSON.stringify(problem), {
    status,
    headers: {
      ...headers,
      'content-type': 'application/problem+json',
      'x-should-retry': String(error.spec.retryable),
    },
  })
}
