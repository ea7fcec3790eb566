import { EventEmitter } from 'node:events'
import type { WorkerSocket } from './worker-frame.ts'

const encoder = new TextEncoder()

/** Assignments are the largest, and a worker has few at once. */
const maxUnreadBytes = 64 * 1024 * 1024

/**
 * A worker without a WebSocket, as a socket: what is sent goes out as server-sent events on `stream`, and what it says is put in by `take`, frame by
 * frame (`http-channels.ts` fetches it). Behind what was put in comes a ping with the last number, whose pong says that all of it was handled.
 */
export class HttpWorkerSocket extends EventEmitter implements WorkerSocket {
  readonly OPEN = 1
  readyState = 1
  readonly stream: ReadableStream<Uint8Array>
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined
  #taken = 0
  #handled = 0

  constructor() {
    super()
    this.stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller
        },
        cancel: () => this.#ended(1006, 'the stream was closed'),
      },
      new ByteLengthQueuingStrategy({ highWaterMark: maxUnreadBytes }),
    )
  }

  /** Number of the last frame that was put in. */
  get taken(): number {
    return this.#taken
  }

  /** Number of the last frame that needs no keeping any more. */
  get handled(): number {
    return this.#handled
  }

  /** Of the frames that follow `taken`, in order. */
  take(frames: { number: number; body: string }[]): void {
    for (const { number, body } of frames) {
      this.#taken = number
      this.emit('message', body)
    }
    this.emit('ping', Buffer.from(String(this.#taken)))
  }

  opened(channelId: string): void {
    this.#event('open', JSON.stringify({ channel_id: channelId }))
  }

  send(text: string): void {
    this.#event('message', text)
  }

  ping(): void {
    this.#event('ping', '{}')
  }

  pong(payload: Buffer): void {
    this.#handled = Number(payload.toString())
    this.#event('handled', JSON.stringify({ through: this.#handled }))
  }

  close(code: number, reason: string): void {
    if (this.readyState !== this.OPEN) return
    this.#event('close', JSON.stringify({ code, reason }))
    // A reader that is far behind was cut off by it.
    if (this.readyState !== this.OPEN) return
    this.#controller?.close()
    this.#ended(code, reason)
  }

  terminate(): void {
    if (this.readyState !== this.OPEN) return
    // Not as an error, which would be told on the console: without a `close` event the worker knows it for a cut.
    this.#controller?.close()
    this.#ended(1006, '')
  }

  #event(name: string, data: string): void {
    this.#write(`event: ${name}\ndata: ${data}\n\n`)
  }

  #write(text: string): void {
    if (this.readyState !== this.OPEN) return
    // Whoever does not read is not given more and more to remember.
    if ((this.#controller?.desiredSize ?? 0) <= 0) this.terminate()
    else this.#controller?.enqueue(encoder.encode(text))
  }

  #ended(code: number, reason: string): void {
    this.readyState = 3
    this.emit('close', code, Buffer.from(reason))
  }
}
