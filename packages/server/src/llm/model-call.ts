/**
 * One call of a model, from the prepared request to the last byte of the answer.
 *
 * sent ──► refused (no usage)                     the provider's error becomes ours
 *   └────► answering ──► ended                    all of it was passed on
 *                    ├─► left                     the client went away: the provider is told at once, by closing its connection
 *                    └─► cut                      the provider's connection broke: the client's is broken as well, so that half an
 *                                                 answer is never taken for a whole one
 *
 * A chunk is fetched when the client has taken the one before, so a slow client slows its provider down and nothing piles up here. What
 * was answered is recorded exactly once, in whichever of the three ways it ended; a call that the client left before there was an answer
 * is recorded too, by its size: the provider has read the question.
 */

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AppError } from '@openoz/protocol'
import type { ResolvedModel } from './catalog.ts'
import type { ProviderConnections } from './connections.ts'
import type { ModelRequest } from './model-request.ts'
import { headersToClient, headersToProvider, isEventStream } from './passed-headers.ts'
import type { ModelWire, ProviderName } from './providers.ts'
import { readRefusal, type UpstreamRefusal } from './upstream-refusal.ts'
import { createUsageMeter, type Usage, type UsageMeter } from './usage-meter.ts'

type CallEnd = 'ended' | 'left' | 'cut'

interface ModelCall {
  model: ResolvedModel
  request: ModelRequest
  wire: ModelWire
  /** Of the provider, below its base: `/chat/completions`. */
  path: string
  clientHeaders: Headers
  /** Aborts when the client goes away. */
  signal: AbortSignal
  /** The client's connection, where there is one: breaking it is how a cut is passed on. */
  outgoing: ServerResponse | undefined
  headersTimeoutMs: number
  usableModels: () => Promise<string>
  /** Providers that know no `stream_options`, learned from their refusal: their streams are estimated. Shared by all calls. */
  withoutUsageOption: Set<ProviderName>
  /** Called once when there is something to pay for. Must not throw. */
  onEnd(end: CallEnd, status: number, usage: Usage): void
}

/** The provider answered with an error; nothing was passed on. */
export class CallRefused extends Error {
  readonly refusal: UpstreamRefusal
  constructor(refusal: UpstreamRefusal) {
    super(refusal.error.code)
    this.refusal = refusal
  }
  get error(): AppError {
    return this.refusal.error
  }
}

/** Rejects with `CallRefused`, `ProviderUnreachable`, or the signal's reason. */
export async function callModel(call: ModelCall, connections: ProviderConnections): Promise<Response> {
  const { name } = call.model.provider
  const askForUsage = !call.withoutUsageOption.has(name)
  try {
    return await attempt(call, connections, askForUsage)
  } catch (error) {
    const isAboutOurs = askForUsage && !call.request.wantsUsage && call.wire === 'openai-chat' && call.request.isStream
    if (!(isAboutOurs && error instanceof CallRefused && error.refusal.isAboutUsageOption)) throw error
    call.withoutUsageOption.add(name)
    return attempt(call, connections, false)
  }
}

async function attempt(call: ModelCall, connections: ProviderConnections, askForUsage: boolean): Promise<Response> {
  const { model, request, wire, path, signal, onEnd } = call
  const meterOptions = {
    wire,
    requestBytes: request.bytes,
    dropUsageChunk: wire === 'openai-chat' && askForUsage && !request.wantsUsage,
  }
  signal.throwIfAborted()
  let answer: IncomingMessage
  try {
    answer = await connections.send({
      method: 'POST',
      url: model.provider.url(path),
      headers: headersToProvider(call.clientHeaders, model.provider.credentials()),
      body: request.bodyFor(model.upstreamModel, wire, askForUsage),
      headersTimeoutMs: call.headersTimeoutMs,
      signal,
    })
  } catch (error) {
    if (signal.aborted) onEnd('left', 0, createUsageMeter({ ...meterOptions, format: 'opaque' }).usage())
    throw error
  }
  const status = answer.statusCode ?? 0
  if (status < 200 || status > 299) throw new CallRefused(await readRefusal(answer, model, call.usableModels))

  const isEncoded = (answer.headers['content-encoding'] ?? 'identity') !== 'identity'
  const format = isEncoded ? 'opaque' : isEventStream(answer.headers) ? 'events' : 'json'
  const meter = createUsageMeter({ ...meterOptions, format })
  const body = passOn(answer, meter, call, (end) => onEnd(end, status, meter.usage()))
  return new Response(body, { status, headers: headersToClient(answer.headers) })
}

function passOn(
  answer: IncomingMessage,
  meter: UsageMeter,
  { outgoing, signal }: Pick<ModelCall, 'outgoing' | 'signal'>,
  onEnd: (end: CallEnd) => void,
): ReadableStream<Uint8Array> {
  const chunks = answer[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  let isOver = false
  const finish = (end: CallEnd) => {
    if (isOver) return
    isOver = true
    onEnd(end)
  }
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          for (;;) {
            const { done, value } = await chunks.next()
            const passed = done ? meter.flush() : meter.push(value)
            if (passed.length > 0) controller.enqueue(passed)
            if (done) {
              finish('ended')
              controller.close()
            }
            if (done || passed.length > 0) return
          }
        } catch (error) {
          if (isOver) return
          finish(signal.aborted || outgoing?.destroyed ? 'left' : 'cut')
          // The server's adapter would end the answer politely and print the error; closing the connection says what has happened.
          if (outgoing) outgoing.destroy()
          else controller.error(error)
        }
      },
      cancel() {
        finish('left')
        answer.destroy()
      },
    },
    { highWaterMark: 0 },
  )
}
