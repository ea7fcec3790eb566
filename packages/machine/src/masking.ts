import { buildAutomaton, type SecretAutomaton } from './secret-automaton.ts'
import { secretForms } from './secret-forms.ts'

/** What stands in the place of a secret. Neighbouring and overlapping secrets share one. */
export const maskText = '***'

/**
 * Keeps secrets out of everything that leaves the agent: output of tools, words of the model, payloads of events.
 *
 * Masked are the values, their lines, and their base64 (at any position), URL and JSON forms; see `secret-forms.ts`. Values shorter than 4
 * characters are ignored (they occur in any text). Every occurrence is masked, also where two secrets overlap: the mask covers
 * their union. Not masked: what a program encrypts, compresses, reverses or prints character by character.
 */
export interface Masker {
  /** Masks a text that is complete. */
  mask(text: string): string
  /** Masks all strings in a JSON value and returns a new one. Keys, numbers and other leaves stay as they are. */
  maskValue<T>(value: T): T
  /**
   * The stream of this key, made at first use and forgotten after its `flush`: one per source of text whose chunks belong together
   * (a message id, a tool call's output).
   */
  stream(key: string): MaskingStream
}

export interface MaskingStream {
  /** Returns what can be said already. Held back is only a tail that may be the beginning of a secret. */
  push(chunk: string): string
  /** The end of the text: returns what was held back. */
  flush(): string
}

export function createMasker(secrets: Iterable<string>): Masker {
  const forms = secretForms(secrets)
  const automaton = buildAutomaton(forms)
  const streams = new Map<string, MaskingStream>()

  function mask(text: string): string {
    if (forms.length === 0) return text
    const stream = new SecretStream(automaton)
    return stream.push(text) + stream.flush()
  }

  function maskValue(value: unknown): unknown {
    if (typeof value === 'string') return mask(value)
    if (Array.isArray(value)) return value.map(maskValue)
    if (value === null || typeof value !== 'object') return value
    // fromEntries defines properties, so a key named __proto__ stays a key.
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, maskValue(item)]))
  }

  function stream(key: string): MaskingStream {
    const known = streams.get(key)
    if (known) return known
    const made = new SecretStream(automaton)
    const forgetful: MaskingStream = {
      push: (chunk) => made.push(chunk),
      flush: () => {
        streams.delete(key)
        return made.flush()
      },
    }
    streams.set(key, forgetful)
    return forgetful
  }

  return { mask, maskValue: (value) => maskValue(value) as typeof value, stream }
}

/**
 * Positions count from the first character of the held-back text. `#state` knows how much of the tail may become a secret (its depth), so
 * everything before that is decided. A match [start, end) may still be swallowed by a longer one that began earlier; it is written
 * once its start is decided.
 */
class SecretStream implements MaskingStream {
  readonly #automaton: SecretAutomaton
  #held = ''
  #state = 0
  /** Found and not yet written, in order and not touching each other. */
  #matches: { start: number; end: number }[] = []
  /** The last thing that was written is a mask: a match that begins right here needs none of its own. */
  #endsMasked = false

  constructor(automaton: SecretAutomaton) {
    this.#automaton = automaton
  }

  push(chunk: string): string {
    const { skip, step, depth, matchLength } = this.#automaton
    const text = this.#held + chunk
    let state = this.#state
    for (let at = this.#held.length; at < text.length; ) {
      if (state === 0) {
        at = skip(text, at)
        if (at === text.length) break
      }
      state = step(state, text.charCodeAt(at++))
      const length = matchLength[state] as number
      if (length > 0) this.#found(at - length, at)
    }
    this.#state = state
    return this.#write(text, text.length - (depth[state] as number))
  }

  flush(): string {
    const rest = this.#write(this.#held, this.#held.length)
    this.#state = 0
    this.#endsMasked = false
    return rest
  }

  #found(start: number, end: number): void {
    let from = Math.max(start, 0)
    for (let last = this.#matches.at(-1); last && last.end >= from; last = this.#matches.at(-1)) {
      from = Math.min(from, last.start)
      this.#matches.pop()
    }
    this.#matches.push({ start: from, end })
  }

  /** Writes up to `decided`, and whole matches that begin there or before; keeps the rest. */
  #write(text: string, decided: number): string {
    let written = 0
    let out = ''
    let done = 0
    for (const match of this.#matches) {
      if (match.start > decided) break
      if (match.start > written) this.#endsMasked = false
      out += text.slice(written, match.start) + (this.#endsMasked ? '' : maskText)
      this.#endsMasked = true
      written = match.end
      done++
    }
    if (decided > written) {
      out += text.slice(written, decided)
      written = decided
      this.#endsMasked = false
    }
    this.#held = text.slice(written)
    this.#matches = this.#matches.slice(done).map(({ start, end }) => ({ start: start - written, end: end - written }))
    return out
  }
}
