/**
 * One call of a model, from the prepared request to the last byte of the answer.
 *
 * sent ──► refused (no usage)                     the provider's error is passed on
 *   └────► answering ──► ended                    all of it was passed on
 *                    ├─► left                     the client went away: the provider is told at once, by closing its connection
 *                    └─► cut                      the provider's connection broke: the client's is broken as well, so that half an
 *                                                 answer is never taken for a whole one
 *
 * A slow client slows its provider down: while the client's socket takes no more, none is read, and nothing piles up here. What was answered is
 * recorded exactly once, in whichever of the three ways it ended; a call that the client left before there was an answer is recorded too, by its
 * size: the provider has read the question.
 */

import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type { ModelWire } from '@openoz/protocol'
import type { ResolvedModel } from './catalog.ts'
import type { ProviderConnections } from './connections.ts'
import type { ModelRequest } from './model-request.ts'
import { formatOf, headersToClient, headersToProvider } from './passed-headers.ts'
import { readRefusal, type UpstreamRefusal } from './upstream-refusal.ts'
import { createUsageMeter, type UsageMeter } from './usage-meter.ts'
import type { Usage } from './usage-tally.ts'

export type CallEnd = 'ended' | 'left' | 'cut'

interface ModelCall {
  model: ResolvedModel
  request: ModelRequest
  wire: ModelWire
  /** Of the provider, below its base: `/chat/completions`. */
  path: string
  clientHeaders: IncomingHttpHeaders
  response: ServerResponse
  /** Aborts when the client goes away. */
  signal: AbortSignal
  headersTimeoutMs: number
  /** Names of providers that know no `stream_options`, learned from their refusal: their streams are estimated. Shared by all calls. */
  withoutUsageOption: Set<string>
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
}

/** Resolves when the answer has begun; it goes on by itself. Rejects with `CallRefused`, `ProviderUnreachable`, or the signal's reason. */
export async function callModel(call: ModelCall, connections: ProviderConnections): Promise<void> {
  const { name } = call.model.provider
  const askForUsage = !call.withoutUsageOption.has(name)
  try {
    await attempt(call, connections, askForUsage)
  } catch (error) {
    const isAboutOurs = askForUsage && !call.request.wantsUsage && call.wire === 'openai-chat' && call.request.isStream
    if (!(isAboutOurs && error instanceof CallRefused && error.refusal.isAboutUsageOption)) throw error
    call.withoutUsageOption.add(name)
    await attempt(call, connections, false)
  }
}

async function attempt(call: ModelCall, connections: ProviderConnections, askForUsage: boolean): Promise<void> {
  const { model, request, wire, path, signal, response, onEnd } = call
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
      url: model.provider.url(path, model.upstreamModel),
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
  if (status < 200 || status > 299) throw new CallRefused(await readRefusal(answer, model.provider))

  const format = formatOf(answer.headers)
  const meter = createUsageMeter({ ...meterOptions, format })
  response.writeHead(status, headersToClient(answer.headers))
  // A client shall see that it is being answered; but where words have come with the head they go out with it.
  if (format === 'events' || format === 'frames')
    setImmediate(() => {
      if (!response.destroyed) response.flushHeaders()
    })
  passOn(answer, meter, response, (end) => onEnd(end, status, meter.usage()))
}

function passOn(
  answer: IncomingMessage,
  meter: UsageMeter,
  response: ServerResponse,
  onEnd: (end: CallEnd) => void,
): void {
  let isOver = false
  // What has come by the end of this turn of the event loop goes out as one: one read of the socket may hold many chunks, and the end.
  const gathered: Buffer[] = []
  const takeGathered = () => gathered.splice(0)
  const flush = () => {
    if (gathered.length > 0 && !response.destroyed && !response.write(join(takeGathered()))) answer.pause()
  }
  const finish = (end: CallEnd) => {
    isOver = true
    onEnd(end)
  }
  const cut = () => {
    if (isOver) return
    flush()
    finish(response.destroyed ? 'left' : 'cut')
    response.destroy()
  }
  answer.on('data', (chunk: Buffer) => {
    const passed = meter.push(chunk)
    if (passed.length > 0 && gathered.push(passed) === 1) setImmediate(flush)
  })
  answer.on('end', () => {
    if (isOver) return
    if (!answer.complete) return cut()
    const last = [...takeGathered(), meter.flush()]
    finish('ended')
    response.end(join(last))
  })
  answer.on('error', cut)
  answer.on('close', cut)
  response.on('drain', () => answer.resume())
  response.on('close', () => {
    if (isOver) return
    finish('left')
    answer.destroy()
  })
}

function join(parts: Buffer[]): Buffer {
  return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts)
}
