import { userInfo } from 'node:os'
import { AppError, messageOf } from '@openoz/protocol'
import type { EngineAddress } from './engine-address.ts'

/** The engine said no (`status`), or nothing at all: then it is away, and what it knows of our containers is unknown, not gone. */
export class EngineFailure extends Error {
  readonly status: number | undefined
  /** Its words, or those of the connection; without logins and signatures in addresses. */
  readonly engineSays: string
  /** "POST /containers/create": never with its query or body. */
  readonly request: string

  constructor(request: string, says: string, options: { status?: number; cause?: unknown } = {}) {
    const engineSays = withoutSecrets(says)
    const answered = options.status === undefined ? 'no answer' : `answered ${options.status}`
    super(`Docker engine, ${request}: ${answered}: ${engineSays}`, { cause: options.cause })
    this.name = 'EngineFailure'
    this.status = options.status
    this.engineSays = engineSays
    this.request = request
  }
}

/** 404: no such container, image, network or volume. */
export function isMissing(error: unknown): boolean {
  return error instanceof EngineFailure && error.status === 404
}

/** 409: the name is taken, or it is used or being removed at the moment. */
export function isConflict(error: unknown): boolean {
  return error instanceof EngineFailure && error.status === 409
}

/** What Node says of a connection that breaks while an answer is read. */
const breaks = ['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ERR_STREAM_PREMATURE_CLOSE']

/** No answer, or only half of one: the engine is away, or the way to it is. */
export function isEngineAway(error: unknown): boolean {
  if (error instanceof EngineFailure) return error.status === undefined
  return error instanceof Error && 'code' in error && breaks.includes(String(error.code))
}

/** In the words of the kernel, whatever the engine was about. */
const outOfDisk = /no space left on device|disk quota exceeded/i

const maxProblemLength = 1_000

/** What an operator can act on, of whatever a call of the engine has thrown. */
export function engineProblem(error: unknown, { display, source }: EngineAddress): AppError {
  if (error instanceof AppError) return error
  const place = { address: display, source }
  const code = codeOf(error)
  if (code === 'EACCES' || code === 'EPERM')
    return new AppError('engine_permission', { ...place, user: userName() }, { cause: error })
  if (error instanceof EngineFailure && error.status !== undefined && !isHttpToTls(error)) {
    const { request, status } = error
    const problem = withoutFullStop(error.engineSays.replaceAll(/\s+/g, ' ')).slice(0, maxProblemLength)
    if (outOfDisk.test(problem)) return new AppError('engine_disk_full', { ...place, problem }, { cause: error })
    return new AppError('engine_failed', { ...place, request, status, problem }, { cause: error })
  }
  return new AppError('engine_unreachable', { ...place, problem: whyUnreachable(error, code) }, { cause: error })
}

function whyUnreachable(error: unknown, code: string | undefined): string {
  const says = withoutFullStop(error instanceof EngineFailure ? error.engineSays : withoutSecrets(messageOf(error)))
  if (code === 'ENOENT') return 'there is no such socket'
  if (code === 'ECONNREFUSED') return 'nothing listens there'
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'the name of its host cannot be resolved'
  if (code !== undefined && /^ERR_SSL_.*(BAD_CERTIFICATE|CERTIFICATE_REQUIRED|UNKNOWN_CA)$/.test(code))
    return 'it does not take the certificate of this worker (DOCKER_CERT_PATH)'
  if (code === 'EPROTO' || code === 'ERR_SSL_WRONG_VERSION_NUMBER')
    return `no encrypted connection can be made (${says})`
  if (error instanceof EngineFailure && isHttpToTls(error))
    return 'it takes encrypted connections only (DOCKER_TLS_VERIFY)'
  return says
}

function isHttpToTls({ status, engineSays }: EngineFailure): boolean {
  return status === 400 && engineSays.includes('HTTP request to an HTTPS server')
}

function codeOf(error: unknown): string | undefined {
  const cause = error instanceof EngineFailure ? error.cause : error
  // A host with several addresses fails with one error for all.
  const first = cause instanceof AggregateError ? cause.errors[0] : cause
  return first instanceof Error && 'code' in first ? String(first.code) : undefined
}

function userName(): string {
  try {
    return userInfo().username
  } catch {
    // Without an entry in /etc/passwd.
    return String(process.getuid?.())
  }
}

/** Addresses in what engines say may carry a login, or a signature in their query. */
export function withoutSecrets(text: string): string {
  return text
    .replaceAll(/(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@"']*@/gi, '$1')
    .replaceAll(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s?"']*)\?[^\s"']*/gi, '$1')
    .trim()
}

function withoutFullStop(text: string): string {
  return text.replace(/\.$/, '')
}
