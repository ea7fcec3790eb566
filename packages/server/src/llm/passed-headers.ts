import type { IncomingHttpHeaders } from 'node:http'

/**
 * Which headers cross the gateway. Lists of what may pass, not of what may not: what a proxy or a client adds tomorrow (addresses, cookies,
 * traces, names of users) stays here without anybody having thought of it.
 */

/** To the provider. The client's own name passes: some providers treat their own programs differently. */
const towardsProvider = /^(accept|content-type|user-agent|idempotency-key|anthropic-.+|openai-.+)$/

/** To the client. Not the provider's cookies, nor whose account it is. */
const towardsClient =
  /^(content-type|content-length|content-encoding|cache-control|request-id|x-request-id|.*ratelimit.*|openai-(model|processing-ms|version))$/

/** `credentials` come last: nothing that a client sends stands in for the provider's key. */
export function headersToProvider(client: Headers, credentials: Record<string, string>): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const [name, value] of client) if (towardsProvider.test(name)) headers[name] = value
  // A client that asks for a version of the wire gets it; the one in `credentials` is the fallback.
  const version = headers['anthropic-version']
  return {
    ...headers,
    ...credentials,
    ...(version && credentials['anthropic-version'] && { 'anthropic-version': version }),
    // Tokens are counted in the answer's plain bytes.
    'accept-encoding': 'identity',
  }
}

export function headersToClient(provider: IncomingHttpHeaders): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries(provider))
    if (typeof value === 'string' && towardsClient.test(name)) headers[name] = value
  if (isEventStream(provider)) {
    // A chunk may be left out of it.
    delete headers['content-length']
    // Reverse proxies in front of us would otherwise collect a stream before they pass it on.
    headers['x-accel-buffering'] = 'no'
  }
  return headers
}

export function isEventStream(headers: IncomingHttpHeaders): boolean {
  return /^text\/event-stream\b/i.test(headers['content-type'] ?? '')
}
