/** Enough to follow a command; the whole output of a tool is kept apart from that. */
const liveCharacters = 64 * 1024

interface OutputDecoder {
  /** Returns what can be said already; a character that is not whole yet is held back. */
  push(bytes: Uint8Array): string
  /** The end of the output: returns what was held back. */
  end(): string
}

/** Bytes of a command as valid text, whatever comes: what is no UTF-8, and NUL (which the store could not keep), becomes U+FFFD. */
export function createOutputDecoder(): OutputDecoder {
  const decoder = new TextDecoder()
  return {
    push: (bytes) => decoder.decode(bytes, { stream: true }).replaceAll('\0', '\uFFFD'),
    end: () => decoder.decode(),
  }
}

interface LiveOutput {
  push(text: string): void
  /** The end of the output: says how much was not shown. */
  end(): void
}

/** Output of a command for those who watch: the first 64 Ki characters as they come, of the rest only the amount. */
export function createLiveOutput(emit: (text: string) => void): LiveOutput {
  let shown = 0
  let hidden = 0
  return {
    push(text) {
      if (text === '') return
      const part = hidden > 0 ? '' : wholeCharacters(text, liveCharacters - shown)
      shown += part.length
      if (part !== '') emit(part)
      if (part.length === text.length) return
      if (hidden === 0) emit('\n[The output goes on; from here on it is not shown live.]\n')
      hidden += text.length - part.length
    },
    end() {
      if (hidden > 0) emit(`[${hidden} more characters followed.]\n`)
    },
  }
}

/** At most so much of a text, with a mark where it was cut. */
export function shortened(text: string, length: number): string {
  return text.length <= length ? text : `${wholeCharacters(text, length)}…`
}

/** The first `length` UTF-16 units, one less where that would cut a character in two. */
export function wholeCharacters(text: string, length: number): string {
  if (text.length <= length) return text
  const isCut = length > 0 && /[\uD800-\uDBFF]/.test(text.charAt(length - 1))
  return text.slice(0, isCut ? length - 1 : Math.max(length, 0))
}
