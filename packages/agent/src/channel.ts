import { createReadStream } from 'node:fs'
import { stat, writeFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import {
  bootClockMs,
  type Dialer,
  fullJitterMs,
  judgeSendFailure,
  RetryLater,
  readAnswerOrRetryLater,
  type StreamEvent,
  sleep,
  toDialError,
} from '@openoz/machine'
import {
  ApiError,
  agentChannelPaths,
  type BlobResponse,
  type HelloRequest,
  type HelloResponse,
  type NextTurnRequest,
  type NextTurnResponse,
} from '@openoz/protocol'

/**
 * The agent channel, apart from the events (which have a sender of their own). Calls are repeated while the control plane is away or busy,
 * until their signal is aborted, and reject with ApiError when it refuses for good.
 */
export interface AgentChannel {
  /** `sentAt`: when the request was sent that was answered, on `bootClockMs`. The lease counts from there. */
  hello(request: HelloRequest, signal: AbortSignal): Promise<{ hello: HelloResponse; sentAt: number }>
  /** Asked again, when an answer was lost, it answers the same. */
  nextTurn(request: NextTurnRequest, signal: AbortSignal): Promise<NextTurnResponse>
  /** Stores bytes, or a file, and returns their id. */
  uploadBlob(content: Uint8Array | { file: string }, options: BlobOptions): Promise<string>
  downloadBlob(blobId: string, signal: AbortSignal): Promise<Uint8Array>
  downloadBlobTo(file: string, blobId: string, signal: AbortSignal): Promise<void>
  /** One connection's worth of commands. */
  commands(signal: AbortSignal): AsyncGenerator<StreamEvent, void, undefined>
  acknowledgeCommands(ids: string[], signal: AbortSignal): Promise<void>
}

interface BlobOptions {
  contentType: string
  signal: AbortSignal
}

const callTimeoutMs = 15_000
/** For the whole of a blob: 200 MB on a slow line. */
const blobTimeoutMs = 10 * 60_000

export function createAgentChannel(dialer: Dialer, executionToken: string): AgentChannel {
  const authorization = `Bearer ${executionToken}`

  async function post(path: string, body: unknown, signal: AbortSignal): Promise<unknown> {
    const response = await dialer.fetch(path, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.any([signal, AbortSignal.timeout(callTimeoutMs)]),
    })
    return readAnswerOrRetryLater(response, dialer.serverUrl)
  }

  function download(blobId: string, signal: AbortSignal): Promise<Uint8Array> {
    return retrying(signal, async () => {
      const timed = AbortSignal.any([signal, AbortSignal.timeout(blobTimeoutMs)])
      const path = `${agentChannelPaths.blobs}/${encodeURIComponent(blobId)}`
      const response = await dialer.fetch(path, { headers: { authorization }, signal: timed })
      if (!response.ok) await readAnswerOrRetryLater(response, dialer.serverUrl)
      return response.bytes().catch((error: unknown) => {
        throw toDialError(error, dialer.serverUrl)
      })
    })
  }

  return {
    hello: (request, signal) =>
      retrying(signal, async () => {
        const sentAt = bootClockMs()
        return { hello: (await post(agentChannelPaths.hello, request, signal)) as HelloResponse, sentAt }
      }),
    nextTurn: (request, signal) =>
      retrying(signal, async () => (await post(agentChannelPaths.nextTurn, request, signal)) as NextTurnResponse),
    uploadBlob: (content, { contentType, signal }) =>
      retrying(signal, async () => {
        const { body, length } = 'file' in content ? await fileBody(content.file) : bytesBody(content)
        const response = await dialer.fetch(agentChannelPaths.blobs, {
          method: 'POST',
          headers: { authorization, 'content-type': contentType, 'content-length': String(length) },
          body,
          signal: AbortSignal.any([signal, AbortSignal.timeout(blobTimeoutMs)]),
          ...asItIsRead,
        })
        return (await readAnswerOrRetryLater<BlobResponse>(response, dialer.serverUrl)).blob_id
      }),
    downloadBlob: download,
    downloadBlobTo: async (file, blobId, signal) => writeFile(file, await download(blobId, signal), { mode: 0o600 }),
    commands: (signal) => dialer.eventStream(agentChannelPaths.commands, { headers: { authorization }, signal }),
    acknowledgeCommands: (ids, signal) =>
      retrying(signal, async () => {
        await post(agentChannelPaths.ackCommands, { ids }, signal)
      }),
  }
}

/**
 * For a body that is a stream: the answer comes after it, and nothing of it is kept. fetch would else hold a second copy of all that was sent, for
 * a redirect or a login of which nothing comes here.
 */
const asItIsRead = { duplex: 'half', redirect: 'error', window: null } as const

interface Body {
  body: Buffer<ArrayBuffer> | ReadableStream<Uint8Array>
  length: number
}

function bytesBody(bytes: Uint8Array): Body {
  return { body: Buffer.from(bytes), length: bytes.byteLength }
}

/** Read as it is sent. (A Blob of a file would be read into the memory, as fast as the disk can.) */
async function fileBody(file: string): Promise<Body> {
  const { size } = await stat(file)
  // No further than the length that was promised, should the file grow meanwhile.
  const stream = size === 0 ? Readable.from([]) : createReadStream(file, { end: size - 1, highWaterMark: 256 * 1024 })
  return { body: Readable.toWeb(stream) as ReadableStream<Uint8Array>, length: size }
}

/** Whether the control plane has said that this execution is over, or its token no longer valid. */
export function isRefusal(error: unknown): error is ApiError {
  return error instanceof ApiError && (error.problem.status === 401 || error.problem.status === 410)
}

/** What may pass is tried again, by the rules of the event sender. */
export async function retrying<T>(signal: AbortSignal, call: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await call()
    } catch (error) {
      signal.throwIfAborted()
      const decision = judgeSendFailure(error)
      if (decision.action !== 'retry' || decision.isBug) throw error instanceof RetryLater ? error.cause : error
      await sleep(Math.max(decision.afterMs, fullJitterMs(attempt, { baseMs: 250, maxMs: 5_000 })), signal)
      signal.throwIfAborted()
    }
  }
}
