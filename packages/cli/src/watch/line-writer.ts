/** Joins pieces of text that come in any size into lines, so that several speakers can take turns without tearing each other's lines. */
export interface LineWriter {
  /** Text of a speaker, in pieces; `prefix` stands before each of its lines. Another speaker begins on a new line. */
  piece(speaker: string, text: string, style: LineStyle): void
  /** The next piece of this speaker goes on in the line that is there. */
  isSpeaking(speaker: string): boolean
  /** A whole line of its own. */
  line(text: string): void
  /** An empty line, unless there is one already. */
  gap(): void
}

export interface LineStyle {
  prefix: string
  paint: (text: string) => string
}

export function createLineWriter(write: (text: string) => void): LineWriter {
  let speaker: string | undefined
  let isLineOpen = false
  let isGap = true

  const closeLine = () => {
    if (isLineOpen) write('\n')
    isLineOpen = false
    speaker = undefined
  }

  return {
    piece(from, text, { prefix, paint }) {
      if (text === '') return
      if (speaker !== from) closeLine()
      speaker = from
      const lines = text.split('\n')
      for (const [index, part] of lines.entries()) {
        const isLast = index === lines.length - 1
        // What ends in a line break leaves no open line behind it.
        if (isLast && part === '') break
        write(`${isLineOpen ? '' : prefix}${paint(part)}${isLast ? '' : '\n'}`)
        isLineOpen = isLast
      }
      isGap = false
    },
    isSpeaking: (from) => isLineOpen && speaker === from,
    line(text) {
      closeLine()
      write(`${text}\n`)
      isGap = false
    },
    gap() {
      closeLine()
      if (!isGap) write('\n')
      isGap = true
    },
  }
}
