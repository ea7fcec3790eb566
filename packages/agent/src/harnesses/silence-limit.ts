import { firstEnd } from '../child-end.ts'
import { CutStream } from './model-failure.ts'

type Fetch = typeof globalThis.fetch

interface SilenceLimit {
  limitMs: number
  /** An answer's stream broke. Told apart, since some libraries take that for its end. */
  onBroken: (error: unknown) => void
  /** A part of an answer came; not called for refusals. */
  onHeard: () => void
}

/**
 * A fetch whose answers count as cut when no byte of them comes for so long. Bytes are watched and not events: a model that streams one byte a
 * second is slow, not gone. Only waiting for the other side counts: nothing is measured while the reader itself takes its time.
 */
export function withSilenceLimit(fetch: Fetch, { limitMs, onBroken, onHeard }: SilenceLimit): Fetch {
  return async (target, init = {}) => {
    const stop = new AbortController()
    const signal = init.signal ? AbortSignal.any([init.signal, stop.signal]) : stop.signal
    const onSilence = () => {
      const cut = new CutStream(`nothing came for ${limitMs} ms`)
      stop.abort(cut)
      return cut
    }
    const response = await within(fetch(target, { ...init, signal }), limitMs, onSilence)
    if (!response.body) return response
    const reader = response.body.getReader()
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          try {
            const { done, value } = await within(reader.read(), limitMs, onSilence)
            if (response.ok) onHeard()
            if (done) controller.close()
            else controller.enqueue(value)
          } catch (error) {
            onBroken(error)
            throw error
          }
        },
        cancel: (reason) => reader.cancel(reason),
      },
      { highWaterMark: 0 },
    )
    const { status, statusText, headers } = response
    return new Response(body, { status, statusText, headers })
  }
}

async function within<T extends object>(work: Promise<T>, limitMs: number, onSilence: () => CutStream): Promise<T> {
  const end = await firstEnd(work, { timeoutMs: limitMs })
  if (typeof end === 'string') throw onSilence()
  return end
}
