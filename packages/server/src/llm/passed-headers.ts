import type { IncomingHttpHeaders } from 'node:http'

/**
 * Which headers cross the gateway. Lists of what may pass, not of what may not: what a proxy or a client adds tomorrow (addresses, cookies,
 * traces, names of users) stays here without anybody having thought of it.
 */

/** To the provider. The client's own name passes: some providers treat their own programs differently. */
const towardsProvider =
  /^(accept|content-type|user-agent|idempotency-key|anthropic-.+|openai-.+|x-goog-api-client|x-amzn-bedrock-.+)$/

/** To the client. Not the provider's cookies, nor whose account it is. */
const towardsClient =
  /^(content-type|content-length|content-encoding|cache-control|request-id|x-request-id|.*ratelimit.*|openai-(model|processing-ms|version)|x-amzn-(requestid|bedrock-.+)|x-gemini-service-tier)$/

/** The same few names come with every request, and asking a pattern about each of them is most of what a header costs. */
function remembered(pattern: RegExp): (name: string) => boolean {
  const known = new Map<string, boolean>()
  return (name) => {
    let answer = known.get(name)
    if (answer === undefined) {
      answer = pattern.test(name)
      if (known.size < 1_000) known.set(name, answer)
    }
    return answer
  }
}

const passesToProvider = remembered(towardsProvider)
const passesToClient = remembered(towardsClient)

/** `credentials` come last: nothing that a client sends stands in for the provider's key. */
export function headersToProvider(
  client: IncomingHttpHeaders,
  credentials: Record<string, string>,
): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const name in client) {
    const value = client[name]
    if (typeof value === 'string' && passesToProvider(name)) headers[name] = value
  }
  // A client that asks for a version of the wire gets it; the one in `credentials` is the fallback.
  const version = headers['anthropic-version']
  Object.assign(headers, credentials)
  if (version && credentials['anthropic-version']) headers['anthropic-version'] = version
  // Tokens are counted in the answer's plain bytes.
  headers['accept-encoding'] = 'identity'
  return headers
}

export function headersToClient(provider: IncomingHttpHeaders): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const name in provider) {
    const value = provider[name]
    if (typeof value === 'string' && passesToClient(name)) headers[name] = value
  }
  if (isStream(provider)) {
    // A chunk may be left out of it.
    delete headers['content-length']
    // Reverse proxies in front of us would otherwise collect a stream before they pass it on.
    headers['x-accel-buffering'] = 'no'
  }
  return headers
}

/** What the answer's bytes are, for counting. */
export function formatOf(headers: IncomingHttpHeaders): 'events' | 'frames' | 'json' | 'opaque' {
  if ((headers['content-encoding'] ?? 'identity') !== 'identity') return 'opaque'
  const type = headers['content-type'] ?? ''
  if (/^text\/event-stream\b/i.test(type)) return 'events'
  return /^application\/vnd\.amazon\.eventstream\b/i.test(type) ? 'frames' : 'json'
}

function isStream(headers: IncomingHttpHeaders): boolean {
  const format = formatOf(headers)
  return format === 'events' || format === 'frames'
}
