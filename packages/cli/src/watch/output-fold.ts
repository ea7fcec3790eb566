/**
 * Output of any length in a few lines: its beginning as it comes, its end once it has ended, and between them how many lines are not shown.
 * Holds no more than the end.
 */
export interface OutputFold {
  /** What may be shown at once; pieces come in any size. */
  push(text: string): string
  /** The rest, once nothing more comes. `hidden`: lines between what was shown and `tail`. */
  end(): { hidden: number; tail: string }
}

export interface FoldSize {
  head: number
  tail: number
}

/** A line without an end (a minified file, a progress bar) must not fill the memory or the screen. */
const maxLineCharacters = 4_000

export function createOutputFold({ head, tail: keep }: FoldSize): OutputFold {
  let shown = 0
  let hidden = 0
  let tail: string[] = []
  let isTailOpen = false

  const hold = (part: string) => {
    if (!isTailOpen) tail.push('')
    const line = tail.at(-1) ?? ''
    const isEnd = part.endsWith('\n')
    const room = Math.max(0, maxLineCharacters - line.length)
    const fitting = part.length <= room ? part : `${part.slice(0, room)}${room > 0 ? '…' : ''}${isEnd ? '\n' : ''}`
    tail[tail.length - 1] = line + fitting
    isTailOpen = !isEnd
    if (tail.length > keep) {
      tail.shift()
      hidden++
    }
  }

  return {
    push(text) {
      let now = ''
      for (const part of text.match(/[^\n]*\n|[^\n]+/g) ?? []) {
        if (shown >= head) hold(part)
        else {
          now += part
          if (part.endsWith('\n')) shown++
        }
      }
      return now
    },
    end() {
      const rest = { hidden, tail: tail.join('') }
      shown = 0
      hidden = 0
      tail = []
      isTailOpen = false
      return rest
    },
  }
}

/** The same for text that is there as a whole. */
export function foldText(text: string, size: FoldSize, marker: (hidden: number) => string): string {
  const fold = createOutputFold(size)
  const head = fold.push(text)
  const { hidden, tail } = fold.end()
  return hidden === 0 ? head + tail : `${head}${marker(hidden)}\n${tail}`
}
