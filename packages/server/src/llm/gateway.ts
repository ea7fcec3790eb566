/**
 * The model gateway: agents speak the providers' own wires to it, with their execution's token for a key. It swaps the key, counts the
 * tokens, and changes nothing else that a client could notice.
 *
 * Nothing of what is said to a model or by it, and no key, goes into a log at any level: ids, names, status, time and counts do.
 */

import type { ServerResponse } from 'node:http'
import { AppError } from '@openoz/protocol'
import { type Context, Hono } from 'hono'
import type { Logger } from 'pino'
import { toProblem } from '../http/problems.ts'
import type { ModelCatalog, ResolvedModel } from './catalog.ts'
import { type ProviderConnections, ProviderUnreachable } from './connections.ts'
import { CallRefused, callModel } from './model-call.ts'
import { type ModelRequest, readBody, readModelRequest } from './model-request.ts'
import type { ModelWire, ProviderName } from './providers.ts'
import type { Usage } from './usage-meter.ts'

export interface GatewayDeps {
  connections: ProviderConnections
  catalog: ModelCatalog
  /** Throws an `AppError` for a token that opens nothing. */
  authenticate(token: string): Promise<GatewayCaller>
  recordUsage(usage: UsageRecord): Promise<void>
  log: Logger
  /** Of a request; default 64 MiB. */
  maxBodyBytes?: number
  /** How long a provider may take to begin a streamed answer. Default: 60 s for the vendors' services, 5 min for servers of one's own. */
  headersTimeoutMs?: number
}

interface GatewayCaller {
  executionId: string
  runId: string
}

export interface UsageRecord extends GatewayCaller, Usage {
  /** `openai` */
  provider: string
  /** The provider's own name for the model. */
  model: string
}

export interface Gateway {
  /** To be mounted at `/llm`. */
  routes: Hono<GatewayEnv>
  /** Resolves when the usage of every call that has ended is recorded; for an orderly stop. */
  recorded(): Promise<void>
}

interface GatewayEnv {
  // What @hono/node-server adds; absent in tests that call the app without a server.
  Bindings: { outgoing?: ServerResponse }
}

interface Route {
  wire: ModelWire
  /** Below the provider's base. */
  path: string
  /** Counting tokens costs none. */
  isMetered: boolean
}

const routes = {
  '/openai/v1/chat/completions': { wire: 'openai-chat', path: '/chat/completions', isMetered: true },
  '/openai/v1/responses': { wire: 'openai-responses', path: '/responses', isMetered: true },
  '/anthropic/v1/messages': { wire: 'anthropic-messages', path: '/messages', isMetered: true },
  '/anthropic/v1/messages/count_tokens': {
    wire: 'anthropic-messages',
    path: '/messages/count_tokens',
    isMetered: false,
  },
} as const satisfies Record<string, Route>

const pathOfWire: Record<ModelWire, string> = {
  'openai-chat': '/llm/openai/v1/chat/completions',
  'openai-responses': '/llm/openai/v1/responses',
  'anthropic-messages': '/llm/anthropic/v1/messages',
}

/** A conversation with images of a model's largest window. */
const defaultMaxBodyBytes = 64 * 1024 * 1024
const vendorHeadersTimeoutMs = 60_000
/** A server of one's own loads the model at the first question, and reads a long one for minutes. */
const ownServerHeadersTimeoutMs = 300_000
/** An answer that is not streamed begins when it is finished; as long as the vendors' own libraries wait. */
const wholeAnswerTimeoutMs = 600_000

export function createGateway(deps: GatewayDeps): Gateway {
  const { catalog, connections, authenticate, log, maxBodyBytes = defaultMaxBodyBytes } = deps
  const recording = new Set<Promise<void>>()
  const withoutUsageOption = new Set<ProviderName>()

  function record(usage: UsageRecord): void {
    const done = deps.recordUsage(usage).catch((error: unknown) => {
      const { runId, executionId, inputTokens, outputTokens } = usage
      log.error({ error, runId, executionId, inputTokens, outputTokens }, 'model usage not recorded')
    })
    recording.add(done)
    void done.finally(() => recording.delete(done))
  }

  async function answerCall(c: Context<GatewayEnv>, route: Route): Promise<Response> {
    const startedAt = performance.now()
    const { executionId, runId } = await authenticate(readToken(c.req.raw.headers))
    const request = readModelRequest(await readBody(c.req.raw, maxBodyBytes))
    const model = await catalog.resolve(request.model)
    checkWire(model, route)
    const about = { executionId, runId, provider: model.provider.name, model: model.upstreamModel }
    try {
      return await callModel(
        {
          model,
          request,
          wire: route.wire,
          path: route.path,
          clientHeaders: c.req.raw.headers,
          signal: c.req.raw.signal,
          outgoing: c.env?.outgoing,
          headersTimeoutMs: headersTimeout(model, request),
          usableModels: () => nameUsable(catalog),
          withoutUsageOption,
          onEnd(end, status, usage) {
            log.debug({ ...about, end, status, ms: Math.round(performance.now() - startedAt), ...usage }, 'model call')
            if (route.isMetered) record({ ...about, ...usage })
          },
        },
        connections,
      )
    } catch (error) {
      if (c.req.raw.signal.aborted) return new Response(null, { status: 499 })
      throw toCallError(error, model)
    }
  }

  function headersTimeout({ provider }: ResolvedModel, { isStream }: ModelRequest): number {
    if (!isStream) return Math.max(wholeAnswerTimeoutMs, deps.headersTimeoutMs ?? 0)
    return deps.headersTimeoutMs ?? (provider.isVendor ? vendorHeadersTimeoutMs : ownServerHeadersTimeoutMs)
  }

  async function answerModels(c: Context<GatewayEnv>): Promise<Response> {
    await authenticate(readToken(c.req.raw.headers))
    const { models } = await catalog.list()
    return c.json({
      object: 'list',
      data: models.map(({ id, display_name }) => ({
        id,
        object: 'model',
        created: 0,
        owned_by: id.split('/', 1)[0],
        // Anthropic's clients read these two.
        type: 'model',
        display_name,
      })),
      has_more: false,
    })
  }

  const app = new Hono<GatewayEnv>()
  for (const [path, route] of Object.entries(routes)) app.post(path, (c) => answerCall(c, route))
  app.get('/openai/v1/models', answerModels)
  app.get('/anthropic/v1/models', answerModels)
  app.onError((error, c) => answerError(error, c.req.path, log))
  return {
    routes: app,
    async recorded() {
      await Promise.all(recording)
    },
  }
}

/** Both wires' ways of sending a key. */
function readToken(headers: Headers): string {
  const token = /^bearer\s+(\S+)\s*$/i.exec(headers.get('authorization') ?? '')?.[1] ?? headers.get('x-api-key')?.trim()
  if (!token) throw new AppError('api_key_missing')
  return token
}

/** Each family of wires is a path of its own; within OpenAI's, the server behind decides what it speaks. */
function checkWire({ access, provider }: ResolvedModel, route: Route): void {
  const isAnthropic = provider.wire === 'anthropic-messages'
  if (isAnthropic === (route.wire === 'anthropic-messages')) return
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

async function nameUsable(catalog: ModelCatalog): Promise<string> {
  const { models } = await catalog.list()
  return (
    models
      .slice(0, 10)
      .map(({ id }) => id)
      .join(', ') || 'none'
  )
}

/** The same problem as everywhere, with what the provider said to its client libraries. An error's message may quote the prompt: the log gets its code. */
function answerError(error: Error, path: string, log: Logger): Response {
  const refusal = error instanceof CallRefused ? error.refusal : undefined
  const cause = refusal?.error ?? error
  if (cause instanceof AppError && (refusal || cause.code === 'model_provider_unreachable')) {
    const { provider, status, problem } = cause.details
    log.warn({ code: cause.code, provider, status, problem: refusal ? undefined : problem }, 'model call failed')
  }
  // A `type` without a host is read against the address of the request.
  const body = toProblem(log, cause, '', path)
  const status = refusal?.status ?? body.status
  return new Response(JSON.stringify({ ...body, status }), {
    status,
    headers: {
      ...refusal?.headers,
      'content-type': 'application/problem+json',
      'x-should-retry': String(body.retryable),
    },
  })
}
