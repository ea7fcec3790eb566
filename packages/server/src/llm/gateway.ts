/**
 * The model gateway: agents speak the providers' own wires to it, with their execution's token for a key. It swaps the key, counts the
 * tokens, and changes nothing else that a client could notice.
 *
 * Node's own HTTP, without the framework of the other routes: as requests and responses of the web's kind a call takes twice the time.
 *
 * Nothing of what is said to a model or by it, and no key, goes into a log at any level: ids, names, status, time and counts do.
 */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { AppError, errorSpecs } from '@openoz/protocol'
import type { Logger } from 'pino'
import { toProblem } from '../http/problems.ts'
import type { ModelCatalog, ResolvedModel } from './catalog.ts'
import { type ProviderConnections, ProviderUnreachable } from './connections.ts'
import { type ClientError, errorBody, errorHeaders, statusForClients } from './gateway-errors.ts'
import { type CallRoute, familyOfPath, familyOfWire, findRoute, pathOfWire } from './gateway-routes.ts'
import { type CallEnd, CallRefused, callModel } from './model-call.ts'
import type { ModelCallers } from './model-callers.ts'
import { listModels } from './model-lists.ts'
import { type ModelRequest, readBody, readModelRequest } from './model-request.ts'
import type { Prices } from './prices.ts'
import type { UsageLog } from './usage-log.ts'

export interface GatewayDeps {
  connections: ProviderConnections
  catalog: ModelCatalog
  callers: ModelCallers
  prices: Prices
  usageLog: Pick<UsageLog, 'record'>
  log: Logger
  /** Of a request; default 64 MiB. */
  maxBodyBytes?: number
  /** How long a provider may take to begin a streamed answer. Default: 60 s for the vendors' services, 5 min for servers of one's own. */
  headersTimeoutMs?: number
}

export interface Gateway {
  /** For paths that begin with `/llm/`. Never throws or rejects. */
  handle(request: IncomingMessage, response: ServerResponse): void
  /** Calls by how they ended; `refused` were answered with an error. */
  counts: Readonly<Record<CallEnd | 'refused', number>>
}

/** A conversation with images of a model's largest window. */
const defaultMaxBodyBytes = 64 * 1024 * 1024
const vendorHeadersTimeoutMs = 60_000
/** A server of one's own loads the model at the first question, and reads a long one for minutes. */
const ownServerHeadersTimeoutMs = 300_000
/** An answer that is not streamed begins when it is finished; as long as the vendors' own libraries wait. */
const wholeAnswerTimeoutMs = 600_000

export function createGateway(deps: GatewayDeps): Gateway {
  const { catalog, connections, callers, prices, usageLog, log, maxBodyBytes = defaultMaxBodyBytes } = deps
  const counts = { ended: 0, left: 0, cut: 0, refused: 0 }
  const withoutUsageOption = new Set<string>()

  async function answer(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void> {
    const { path, query } = splitUrl(request)
    const caller = await callers.find(readToken(request, query), signal)
    const route = findRoute(request.method ?? '', path, query)
    if (route.kind === 'models')
      return sendJson(response, { status: 200, body: await listModels(catalog, route.family) })
    await answerCall(route, { request, response, signal, ...caller })
  }

  async function answerCall(
    route: CallRoute,
    { request, response, signal, executionId, runId }: Incoming,
  ): Promise<void> {
    const startedAt = performance.now()
    const body = await readBody(request, maxBodyBytes)
    const { model: inPath, isStream = false } = route
    const asked = readModelRequest(body, inPath === undefined ? undefined : { model: inPath, isStream })
    const model = await catalog.resolve(asked.model, ({ wire }) => familyOfWire[wire] === route.family)
    checkWire(model, route)
    const about = { executionId, runId, provider: model.provider.name, model: model.upstreamModel }
    try {
      await callModel(
        {
          model,
          request: asked,
          wire: route.wire,
          path: route.upstream(model.upstreamModel),
          clientHeaders: request.headers,
          response,
          signal,
          headersTimeoutMs: headersTimeout(model, asked),
          withoutUsageOption,
          onEnd(end, status, usage) {
            counts[end]++
            if (log.isLevelEnabled('debug')) {
              const ms = Math.round(performance.now() - startedAt)
              log.debug({ ...about, end, status, ms, ...usage }, 'model call')
            }
            if (!route.isMetered) return
            usageLog.record({ ...about, ...usage, costUsd: prices.cost(model.provider, model.upstreamModel, usage) })
          },
        },
        connections,
      )
    } catch (error) {
      throw toCallError(error, model)
    }
  }

  function headersTimeout({ provider }: ResolvedModel, { isStream }: ModelRequest): number {
    if (!isStream) return Math.max(wholeAnswerTimeoutMs, deps.headersTimeoutMs ?? 0)
    return deps.headersTimeoutMs ?? (provider.isVendor ? vendorHeadersTimeoutMs : ownServerHeadersTimeoutMs)
  }

  /** An error's message may quote the prompt: the log gets its code. */
  function refuse(error: unknown, request: IncomingMessage, response: ServerResponse): void {
    const { path } = splitUrl(request)
    const refusal = error instanceof CallRefused ? error.refusal : undefined
    const told = refusal?.error ?? toClientError(error, path, log)
    counts.refused++
    const unreachable = error instanceof AppError && error.code === 'model_provider_unreachable'
    if (refusal || unreachable)
      log.warn(
        { code: told.code, status: told.status, ...(unreachable && { problem: error.details.problem }) },
        'model call failed',
      )
    if (response.headersSent) return void response.destroy()
    sendRefusal(response, path, told, refusal?.headers)
  }

  return {
    counts,
    handle(request, response) {
      const gone = new AbortController()
      response.once('close', () => {
        if (!response.writableFinished) gone.abort()
      })
      answer(request, response, gone.signal).catch((error: unknown) => {
        if (!gone.signal.aborted) refuse(error, request, response)
      })
    },
  }
}

interface Incoming {
  request: IncomingMessage
  response: ServerResponse
  signal: AbortSignal
  executionId: string
  runId: string
}

function splitUrl({ url = '' }: IncomingMessage): { path: string; query: string } {
  const at = url.indexOf('?')
  return at < 0 ? { path: url, query: '' } : { path: url.slice(0, at), query: url.slice(at) }
}

/** All the wires' ways of sending a key. */
function readToken({ headers }: IncomingMessage, query: string): string {
  const one = (value: string | string[] | undefined) => (typeof value === 'string' ? value.trim() : '')
  const token =
    /^bearer\s+(\S+)\s*$/i.exec(headers.authorization ?? '')?.[1] ||
    one(headers['x-api-key']) ||
    one(headers['x-goog-api-key']) ||
    one(headers['api-key']) ||
    (query.includes('key=') ? new URLSearchParams(query).get('key') : '')
  if (!token) throw new AppError('api_key_missing')
  return token
}

/** Each family of wires is a path of its own; within OpenAI's, the server behind decides what it speaks. */
function checkWire({ access, provider }: ResolvedModel, route: CallRoute): void {
  if (familyOfWire[provider.wire] === route.family) return
  throw new AppError('model_path_wrong', {
    modelId: access.id,
    asked: pathOfWire[route.wire],
    path: pathOfWire[provider.wire],
  })
}

function toCallError(error: unknown, { provider }: ResolvedModel): unknown {
  if (!(error instanceof ProviderUnreachable)) return error
  return new AppError(
    'model_provider_unreachable',
    { provider: provider.name, problem: error.message },
    { cause: error },
  )
}

function toClientError(error: unknown, path: string, log: Logger): ClientError {
  const { code, status, message } = toProblem(log, error, '', path)
  return { code: code as ClientError['code'], status: statusForClients(code as ClientError['code'], status), message }
}

interface JsonAnswer {
  status: number
  body: unknown
  headers?: Record<string, string>
}

function sendJson(response: ServerResponse, { status, body, headers = {} }: JsonAnswer): void {
  const text = JSON.stringify(body)
  response
    .writeHead(status, { ...headers, 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
    .end(text)
}

/** In the words of the path's clients. */
function sendRefusal(
  response: ServerResponse,
  path: string,
  told: ClientError,
  headers: Record<string, string> = {},
): void {
  const family = familyOfPath(path)
  sendJson(response, {
    status: told.status,
    body: errorBody(family, told),
    headers: {
      ...errorHeaders(family, told),
      'x-oz-error-code': told.code,
      'x-should-retry': String(errorSpecs[told.code].retryable),
      ...(told.status === 503 && { 'retry-after': '1' }),
      ...headers,
    },
  })
}

/** What a path's clients get before the gateway is there. */
export function refuseEarly(response: ServerResponse, path: string, { code, spec, message }: AppError): void {
  sendRefusal(response, path, { code, status: spec.status, message })
}
