/**
 * The API of a Docker engine: HTTP on a socket of some kind, one function per call in the files beside this.
 *
 * Which version of the API is spoken is asked once, of the engine; later ones keep what they had for old clients, down to a minimum that
 * they name. Calls fail with an EngineFailure, or with the reason of their signal. A call without an answer of its own (`stream`) has no
 * limit of time: an engine that unpacks an image says nothing for minutes. Bodies are never logged: they hold variables of tasks.
 */

import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { AppError } from '@openoz/protocol'
import type { Logger } from 'pino'
import type { EngineAddress } from './engine-address.ts'
import { EngineFailure } from './engine-failure.ts'
import { createTransport, readText } from './engine-transport.ts'

export interface Engine extends AsyncDisposable {
  readonly address: EngineAddress
  /** Resolves with the answer's content; undefined when it has none. */
  json<T>(method: string, path: string, request?: EngineRequest): Promise<T>
  /** Resolves once the engine begins to answer. Abort its signal, or destroy the message, to end it. */
  stream(method: string, path: string, request?: EngineRequest): Promise<IncomingMessage>
}

export interface EngineRequest {
  /** undefined leaves one out; objects are sent as JSON, as the API takes `filters`. */
  query?: Record<string, string | number | boolean | object | undefined>
  /** Sent as JSON. */
  body?: object
  /** Sent as it is, as a tar archive. */
  archive?: Buffer | Readable
  headers?: Record<string, string>
  signal?: AbortSignal
  /** Of a `json` call, to its end. Default 60 s. */
  timeoutMs?: number
  /** Statuses that are an answer besides 2xx: 304 of a start says that it runs already. */
  ok?: number[]
}

/** What the calls here were written for. A newer engine is asked to speak this. */
const newestApi = '1.47'
/** Engine 20.10: the first where a container can be created for a platform. */
const oldestApi = '1.41'

const defaultTimeoutMs = 60_000
const maxErrorBytes = 64 * 1024

export interface OpenEngineOptions {
  /** For DOCKER_API_VERSION, and for `ssh`. */
  env: NodeJS.ProcessEnv
  log: Logger
}

/** Connects at the first call. Throws `option_invalid` for a DOCKER_API_VERSION that is none. */
export function openEngine(address: EngineAddress, { env, log }: OpenEngineOptions): Engine {
  const wanted = wantedVersion(env)
  const transport = createTransport(address, env)
  let version: string | undefined

  async function versionedPath(path: string, signal: AbortSignal | undefined): Promise<string> {
    version ??= chooseVersion(await ask(signal), { wanted, address })
    return `/v${version}${path}`
  }

  async function ask(signal: AbortSignal | undefined): Promise<VersionAnswer> {
    const answer = await transport.send({ method: 'GET', path: '/version', signal })
    if (answer.statusCode !== 200) throw await failureOf('GET /version', answer)
    const found = parseJson(await readText(answer)) as VersionAnswer
    log.debug({ engine: found.Version, api: found.ApiVersion }, 'Docker engine found')
    return found
  }

  async function begin(method: string, path: string, request: EngineRequest, isStream: boolean) {
    const { query, body, archive, headers, signal, ok = [] } = request
    const answer = await transport.send({
      method,
      path: `${await versionedPath(path, signal)}${queryText(query)}`,
      headers: { ...headers, ...(body && { 'content-type': 'application/json' }) },
      body: body ? Buffer.from(JSON.stringify(body)) : archive,
      signal,
      isStream,
    })
    const status = answer.statusCode ?? 0
    if ((status >= 200 && status < 300) || ok.includes(status)) return answer
    const failure = await failureOf(`${method} ${path}`, answer)
    // The engine was changed for another one since: the next call asks anew.
    if (/client version .* is too (old|new)/.test(failure.engineSays)) version = undefined
    throw failure
  }

  async function json<T>(method: string, path: string, request: EngineRequest = {}): Promise<T> {
    const name = `${method} ${path}`
    const { timeoutMs = defaultTimeoutMs } = request
    const limit = new AbortController()
    const timer = setTimeout(() => limit.abort(), timeoutMs)
    const signal = request.signal ? AbortSignal.any([request.signal, limit.signal]) : limit.signal
    try {
      const text = await readText(await begin(method, path, { ...request, signal }, false))
      return (text.trim() === '' ? undefined : parseJson(text)) as T
    } catch (error) {
      request.signal?.throwIfAborted()
      if (limit.signal.aborted)
        throw new EngineFailure(name, `no answer within ${timeoutMs / 1000} s`, { cause: error })
      throw asFailure(name, error)
    } finally {
      clearTimeout(timer)
    }
  }

  async function stream(method: string, path: string, request: EngineRequest = {}): Promise<IncomingMessage> {
    try {
      return await begin(method, path, request, true)
    } catch (error) {
      request.signal?.throwIfAborted()
      throw asFailure(`${method} ${path}`, error)
    }
  }

  return { address, json, stream, [Symbol.asyncDispose]: () => transport.close() }
}

/** What an IncomingMessage throws while it is read, too. */
export function asFailure(request: string, error: unknown): Error {
  if (error instanceof EngineFailure || error instanceof AppError) return error
  return new EngineFailure(request, error instanceof Error ? error.message : String(error), { cause: error })
}

interface VersionAnswer {
  Version?: string
  ApiVersion?: string
  MinAPIVersion?: string
}

function wantedVersion({ DOCKER_API_VERSION }: NodeJS.ProcessEnv): string | undefined {
  if (DOCKER_API_VERSION && !/^1\.\d{1,3}$/.test(DOCKER_API_VERSION))
    throw new AppError('option_invalid', { option: 'DOCKER_API_VERSION', problem: 'it is written like 1.41' })
  return DOCKER_API_VERSION || undefined
}

function chooseVersion(
  { ApiVersion = oldestApi, MinAPIVersion = oldestApi }: VersionAnswer,
  { wanted, address }: { wanted: string | undefined; address: EngineAddress },
): string {
  const chosen = wanted ?? minorOf(maxVersion(minVersion(ApiVersion, newestApi), MinAPIVersion))
  const fits = [oldestApi, MinAPIVersion].every((version) => minor(chosen) >= minor(version))
  if (fits && minor(chosen) <= minor(ApiVersion)) return chosen
  const offered = MinAPIVersion === ApiVersion ? ApiVersion : `${MinAPIVersion} to ${ApiVersion}`
  const needed = wanted ? `${wanted} (DOCKER_API_VERSION)` : `${oldestApi} or newer`
  throw new AppError('engine_api_unsupported', { address: address.display, offered, wanted: needed })
}

/** Of "1.41", which is newer than "1.9". */
function minor(version: string): number {
  return Number(version.split('.')[1])
}

function minVersion(one: string, other: string): string {
  return minor(one) < minor(other) ? one : other
}

function maxVersion(one: string, other: string): string {
  return minor(one) > minor(other) ? one : other
}

/** It becomes part of a path. */
function minorOf(version: string): string {
  return `1.${minor(version)}`
}

function queryText(query: EngineRequest['query'] = {}): string {
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query))
    if (value !== undefined) parameters.set(name, typeof value === 'object' ? JSON.stringify(value) : String(value))
  return parameters.size === 0 ? '' : `?${parameters}`
}

async function failureOf(request: string, answer: IncomingMessage): Promise<EngineFailure> {
  const text = await readText(answer, maxErrorBytes)
  return new EngineFailure(request, messageIn(text) || `HTTP ${answer.statusCode}`, { status: answer.statusCode })
}

/** Errors are `{"message": …}`; a proxy between may say something else. */
function messageIn(text: string): string {
  try {
    const { message } = JSON.parse(text) as { message?: unknown }
    return typeof message === 'string' ? message : ''
  } catch {
    return text.slice(0, 300)
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new Error('its answer is not that of a Docker engine')
  }
}
