/** A sequence that goes on for longer is none: what held it back is let go. */
const maxSequenceLength = 4_096

/*
 * ECMA-48: control sequences (`ESC [ … letter`), strings that a BEL or `ESC \` ends (`ESC ]` and its like, e.g. window titles), and short
 * escapes. `begun` is one of them whose end has not come yet.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out.
const whole = /\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\`-~])/y
// biome-ignore lint/suspicious/noControlCharactersInRegex: as above.
const begun = /\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)$/y
/** What rings, or switches character sets. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: as above.
const silent = /[\x07\x0e\x0f]/g

export interface TerminalText {
  /** Returns what can be said already; a sequence that is not whole yet is held back. */
  push(text: string): string
  /** The end of the output: returns what was held back. */
  end(): string
}

/**
 * What a program prints to a terminal, without colours, cursor movements and titles, and with plain line ends. Before secrets are masked: a
 * colour that begins in the middle of a secret would hide it from the search.
 */
export function createTerminalText(): TerminalText {
  let held = ''

  function push(chunk: string): string {
    const text = held + chunk
    held = ''
    let plain = ''
    let at = 0
    for (;;) {
      const start = text.indexOf('\x1b', at)
      if (start < 0) break
      plain += text.slice(at, start)
      whole.lastIndex = start
      if (whole.test(text)) {
        at = whole.lastIndex
        continue
      }
      begun.lastIndex = start
      if (begun.test(text) && text.length - start <= maxSequenceLength) {
        held = text.slice(start)
        return lines(plain)
      }
      at = start + 1
    }
    return lines(plain + text.slice(at))
  }

  /** A carriage return at the end may be the first half of a line end. */
  function lines(text: string): string {
    const ending = /\r+$/.exec(text)
    if (ending) held = ending[0].slice(0, 1) + held
    const certain = ending ? text.slice(0, ending.index) : text
    return certain.replace(/\r+\n/g, '\n').replace(silent, '')
  }

  return {
    push,
    end() {
      const rest = held.replaceAll('\x1b', '')
      held = ''
      return rest
    },
  }
}
