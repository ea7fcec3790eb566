import type { Stream } from './output.ts'

/** On terminals, what takes longer than a second says so on stderr, in one line that goes when something is printed or the command ends. */
export interface Progress extends Disposable {
  /** From now on this is what is waited for, such as a server's address. */
  waitFor(what: string): void
  /** The same stream, for what takes the line's place. */
  before(stream: Stream): Stream
}

const firstAfterMs = 1_000
const everyMs = 1_000
const eraseLine = '\r\u001b[K'

/** `afterMs`: for tests. */
export function showProgress(stderr: Stream, { afterMs = firstAfterMs } = {}): Progress {
  let timer: NodeJS.Timeout | undefined
  let isShown = false
  const stop = () => {
    clearTimeout(timer)
    timer = undefined
    if (isShown) stderr.write(eraseLine)
    isShown = false
  }
  return {
    waitFor(what) {
      if (stderr.isTTY !== true) return
      stop()
      const from = performance.now()
      const show = () => {
        isShown = true
        stderr.write(`${eraseLine}waiting for ${what} (${Math.floor((performance.now() - from) / 1000)} s)`)
        timer = setTimeout(show, everyMs).unref()
      }
      timer = setTimeout(show, afterMs).unref()
    },
    before(stream) {
      const write = (text: string) => {
        if (timer !== undefined) stop()
        return stream.write(text)
      }
      return {
        write,
        get isTTY() {
          return stream.isTTY
        },
        get columns() {
          return stream.columns
        },
      }
    },
    [Symbol.dispose]: stop,
  }
}
