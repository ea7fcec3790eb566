import { AppError } from '@openoz/protocol'

/** Why there was no answer. Read by back-off, `oz doctor` and tests; adding one costs a line in `describe` below. */
export const dialFailureReasons = [
  'dns',
  'refused',
  'timeout',
  'network',
  'tls',
  'proxy',
  'socket',
  'reset',
  'redirect',
  'protocol',
  'other',
] as const
export type DialFailureReason = (typeof dialFailureReasons)[number]

/** The proxy itself failed or said no. `message` never holds the proxy's credentials. */
export class ProxyFailure extends Error {
  readonly code = 'OZ_PROXY'
}

/**
 * Turns whatever a socket, undici or ws threw into `server_unreachable` with `details.reason`. The sentence is made here, from codes:
 * messages of other libraries are not passed on, since they may quote a header. An AppError stays what it is.
 */
export function toDialError(error: unknown, url: string): AppError {
  if (error instanceof AppError) return error
  const cause = findCoded(error)
  if (cause) return new AppError('server_unreachable', { url, ...describe(cause) }, { cause })
  // Without a code it is no network error but one about the request, whose text may hold its headers.
  const problem = isPortRefused(error)
    ? 'HTTP clients connect to no such port, which belongs to another protocol; choose another one'
    : 'the request could not be made'
  return new AppError('server_unreachable', { url, reason: 'other', problem })
}

/** fetch has a list of them: https://fetch.spec.whatwg.org/#bad-port */
function isPortRefused(error: unknown): boolean {
  return error instanceof Error && error.cause instanceof Error && error.cause.message === 'bad port'
}

/** The reason of a `server_unreachable`; undefined for every other error. */
export function dialFailureReason(error: unknown): DialFailureReason | undefined {
  if (!(error instanceof AppError) || error.code !== 'server_unreachable') return undefined
  return dialFailureReasons.find((reason) => reason === error.details.reason) ?? 'other'
}

interface CodedError extends Error {
  code: string
  hostname?: string
  address?: string
  port?: number
}

/** fetch wraps the real error in a TypeError, happy eyeballs wraps one error per address in an AggregateError. */
function findCoded(error: unknown): CodedError | undefined {
  let current: unknown = error
  for (let depth = 0; depth < 5 && current instanceof Error; depth++) {
    const first: unknown = current instanceof AggregateError ? current.errors[0] : undefined
    if (isCoded(first)) return first
    if (isCoded(current)) return current
    // What AbortSignal.timeout aborts with: a DOMException, whose own code is a number.
    if (current.name === 'TimeoutError') return Object.assign(new Error('timed out'), { code: 'ETIMEDOUT' })
    // undici's, which has no code and quotes what it read.
    if (current.name === 'HTTPParserError') return Object.assign(new Error('no HTTP'), { code: 'HPE_INVALID_ANSWER' })
    current = current.cause
  }
  return undefined
}

function isCoded(error: unknown): error is CodedError {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
}

function describe(error: CodedError): { reason: DialFailureReason; problem: string } {
  const { code } = error
  if (error instanceof ProxyFailure) return { reason: 'proxy', problem: error.message }
  switch (code) {
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return { reason: 'dns', problem: `the name ${error.hostname ?? 'of the host'} cannot be resolved (${code})` }
    case 'ECONNREFUSED':
      return { reason: 'refused', problem: `nothing listens there${whereOf(error)}` }
    case 'ENOENT':
      return { reason: 'socket', problem: `there is no socket${whereOf(error)}` }
    case 'EACCES':
    case 'EPERM':
      return { reason: 'socket', problem: `opening it is not allowed${whereOf(error)} (${code})` }
    case 'ETIMEDOUT':
    case 'UND_ERR_CONNECT_TIMEOUT':
      return { reason: 'timeout', problem: 'no answer in time' }
    case 'UND_ERR_HEADERS_TIMEOUT':
    case 'UND_ERR_BODY_TIMEOUT':
      return { reason: 'timeout', problem: 'connected, but no answer in time' }
    case 'ENETUNREACH':
    case 'EHOSTUNREACH':
    case 'ENETDOWN':
    case 'EADDRNOTAVAIL':
      return { reason: 'network', problem: `no route${whereOf(error)} (${code})` }
    case 'ECONNRESET':
    case 'ECONNABORTED':
    case 'EPIPE':
    case 'UND_ERR_SOCKET':
      return { reason: 'reset', problem: 'the connection was closed before the answer was complete' }
  }
  if (isTlsCode(code)) return { reason: 'tls', problem: describeTls(error) }
  if (code.startsWith('HPE_')) return { reason: 'protocol', problem: `what answers is not HTTP (${code})` }
  return { reason: 'other', problem: code }
}

function whereOf(error: CodedError): string {
  if (error.address === undefined) return ''
  return error.port === undefined ? ` at ${error.address}` : ` at ${error.address} port ${error.port}`
}

function isTlsCode(code: string): boolean {
  return /CERT|^ERR_TLS|^ERR_SSL|^ERR_OSSL|SIGNATURE|ISSUER|CRL|^EPROTO$|HOSTNAME_MISMATCH|INVALID_PURPOSE/.test(code)
}

function describeTls({ code, message }: CodedError): string {
  switch (code) {
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
      return `its certificate is signed by an authority that this machine does not know (${code}); name the authority's file in OZ_CA_FILE`
    case 'CERT_HAS_EXPIRED':
      return 'its certificate has expired'
    case 'CERT_NOT_YET_VALID':
      return 'its certificate is not valid yet; compare the clocks'
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return `its certificate is for another name (${message.replace(/\s+/g, ' ').slice(0, 200)})`
    case 'EPROTO':
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return `it does not speak TLS there (${code}); is the address http:// and not https://?`
    default:
      return `TLS failed (${code})`
  }
}
