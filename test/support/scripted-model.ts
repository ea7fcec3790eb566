import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { ModelWire } from '@openoz/protocol'
import { wires } from './model-wires.ts'

/**
 * A stand-in for model providers: a real server on the loopback that speaks their real wires (OpenAI Chat Completions, OpenAI Responses,
 * Anthropic Messages, all streaming; Google's generateContent and Bedrock's Converse, streaming and whole) and answers by a script. It misbehaves on request as providers do: refusals, rate limits, slow and cut
 * streams, silence.
 *
 *   await using model = await startScriptedModel({
 *     steps: [{ toolCalls: [{ name: 'run_command', arguments: { command: 'npm test' } }] }, { text: 'All tests pass.' }],
 *   })
 *   // OPENAI_BASE_URL = `${model.url}/v1`, or one of ANTHROPIC_BASE_URL, GOOGLE_GEMINI_BASE_URL, AWS_ENDPOINT_URL_BEDROCK_RUNTIME = model.url
 */
export type { ModelWire }

/** One answer. Everything may be left out: an empty step is an empty answer. */
export interface ScriptedStep {
  /** A list is streamed in these pieces. */
  text?: string | string[]
  reasoning?: string
  /** `arguments` as a string is sent as it is, also when it is no JSON. */
  toolCalls?: { id?: string; name: string; arguments: Record<string, unknown> | string }[]
  /** `input` holds the cached ones and those written to the cache, `output` the reasoning. Default: 10 and 5. */
  usage?: { input?: number; output?: number; cached?: number; cacheWrite?: number; reasoning?: number }
  /** Default: `tool_calls` when there are some, else `stop`. */
  finish?: 'stop' | 'length' | 'tool_calls' | 'content_filter'
  /** Before the head of the answer. */
  delayMs?: number
  /** Before each piece of the stream. */
  pieceDelayMs?: number
  /** A refusal instead of an answer. */
  status?: number
  headers?: Record<string, string>
  body?: unknown
  /** Breaks the connection after so many pieces of the stream, or ends it without its end (`ends`). */
  cut?: { afterPieces: number; ends?: boolean }
  /** Reports an error after so many pieces of the stream, as the provider would, and ends. */
  failAfterPieces?: number
  /** After so many pieces nothing more comes, until the client goes. */
  hangAfterPieces?: number
}

export interface ModelRequest {
  wire: ModelWire
  path: string
  /** Named in the path or in the body. */
  model: string
  headers: IncomingMessage['headers']
  /** biome-ignore lint/suspicious/noExplicitAny: many wires, and tests look wherever they like. */
  body: any
  /** 0 for the first. */
  number: number
  /** The client went away before the answer was complete. */
  wasAborted: boolean
}

export interface ScriptedModelOptions {
  /** In order; a request more than there are steps is answered with status 500, and says so. */
  steps?: ScriptedStep[]
  /** Decides by the request, instead of `steps`. */
  handler?: (request: ModelRequest) => ScriptedStep | Promise<ScriptedStep>
  /** What `/v1/models` lists. */
  models?: string[]
  /** Refuses every other key with 401. */
  apiKey?: string
  port?: number
}

export interface ScriptedModel extends AsyncDisposable {
  /** Without `/v1`. */
  url: string
  requests: ModelRequest[]
  /** For servers that want to answer these paths themselves. */
  handle: RequestListener
  close(): Promise<void>
}

export async function startScriptedModel(options: ScriptedModelOptions): Promise<ScriptedModel> {
  const requests: ModelRequest[] = []
  const handle: RequestListener = (request, response) => {
    answer(options, requests, { request, response }).catch((error: unknown) => {
      if (!response.headersSent) sendJson(response, 500, { error: { message: String(error) } })
      else response.destroy()
    })
  }
  const server = createServer(handle)
  await new Promise<void>((resolve) => server.listen(options.port ?? 0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const close = async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  return { url: `http://127.0.0.1:${port}`, requests, handle, close, [Symbol.asyncDispose]: close }
}

async function answer(
  options: ScriptedModelOptions,
  requests: ModelRequest[],
  { request, response }: { request: IncomingMessage; response: ServerResponse },
): Promise<void> {
  const { pathname: path, searchParams } = new URL(request.url ?? '/', 'http://localhost')
  const key =
    request.headers['x-api-key'] ??
    request.headers['x-goog-api-key'] ??
    searchParams.get('key') ??
    request.headers.authorization?.replace(/^Bearer /, '')
  if (options.apiKey !== undefined && key !== options.apiKey) {
    return sendJson(response, 401, { error: { type: 'authentication_error', message: 'invalid key' } })
  }
  if (request.method === 'GET' && path.endsWith('models'))
    return sendJson(response, 200, listModels(path, options.models ?? ['scripted']))

  const wire = wires.find((candidate) => candidate.path.test(path) || candidate.whole?.path.test(path))
  if (request.method !== 'POST' || !wire) return sendJson(response, 404, { error: { message: `no route ${path}` } })
  const whole = wire.path.test(path) ? undefined : wire.whole
  const inPath = (whole?.path ?? wire.path).exec(path)?.groups?.model

  const body = JSON.parse(await readText(request))
  const { headers } = request
  const model = inPath === undefined ? String(body.model) : decodeURIComponent(inPath)
  const number = requests.length
  const received: ModelRequest = { wire: wire.name, path, model, headers, body, number, wasAborted: false }
  requests.push(received)
  const gone = new AbortController()
  response.on('close', () => {
    if (response.writableFinished) return
    received.wasAborted = true
    gone.abort()
  })
  const step = (await options.handler?.(received)) ?? options.steps?.[received.number]
  if (!step) throw new Error(`the script has no step ${received.number}`)

  const sleep = (ms: number) => delay(ms, undefined, { signal: gone.signal }).catch(() => {})
  if (step.delayMs) await sleep(step.delayMs)
  if (step.status !== undefined) return sendJson(response, step.status, step.body ?? {}, step.headers)
  if (whole) return sendJson(response, 200, whole.answer(step, model), step.headers)
  response.writeHead(200, { 'content-type': wire.contentType, ...step.headers })
  response.flushHeaders()
  for (const [index, piece] of wire.pieces(step, model).entries()) {
    if (step.pieceDelayMs) await sleep(step.pieceDelayMs)
    if (step.cut?.afterPieces === index) return void (step.cut.ends ? response.end() : response.destroy())
    if (step.failAfterPieces === index) return void response.end(wire.failure)
    if (step.hangAfterPieces === index) await new Promise((resolve) => gone.signal.addEventListener('abort', resolve))
    if (gone.signal.aborted) return
    response.write(piece)
  }
  response.end()
}

/** In the words of whoever is asked: OpenAI and Anthropic, Google, Amazon. */
function listModels(path: string, ids: string[]): unknown {
  if (path.endsWith('/v1beta/models'))
    return {
      models: ids.map((id) => ({
        name: `models/${id}`,
        displayName: id,
        inputTokenLimit: 1_048_576,
        supportedGenerationMethods: ['generateContent', 'countTokens'],
      })),
    }
  if (path.endsWith('/foundation-models'))
    return {
      modelSummaries: ids.map((modelId) => ({
        modelId,
        modelName: modelId,
        inputModalities: ['TEXT', 'IMAGE'],
        outputModalities: ['TEXT'],
        inferenceTypesSupported: ['ON_DEMAND'],
      })),
    }
  const data = ids.map((id) => ({ id, object: 'model', type: 'model', display_name: id }))
  return { object: 'list', data, has_more: false }
}

function sendJson(response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify(body))
}

async function readText(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
