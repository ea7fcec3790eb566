/**
 * The texts in which a secret can show up. Everything here errs on the side of masking: a form too many costs a few bytes of automaton, a
 * form too few prints a key.
 */

/** Shorter values are everywhere in ordinary text ("true", "8080"): masking them would hide the output and tell nobody anything. */
export const minSecretLength = 4
/** Base64 of shorter values is short enough to be a piece of a word. */
const minBase64Length = 8
/** Lines of a multi-line secret that are shorter (`{`, `-----`) are layout. */
const minLineLength = 8
/** `base64` and PEM break their output into lines of these lengths. */
const base64LineLengths = [76, 64]

/** Longer forms are cut into pieces that are masked each on their own: neighbours melt into one mask, and memory stays bounded. */
const maxFormLength = 512

/** Every form of every secret, without duplicates. */
export function secretForms(secrets: Iterable<string>): string[] {
  const forms = new Set<string>()
  for (const secret of secrets) {
    for (const value of new Set([secret, secret.trim()])) {
      if (value.length < minSecretLength) continue
      for (const form of formsOf(value)) addPieces(forms, form)
      for (const line of linesOf(value)) for (const form of [line, ...jsonForms(line)]) addPieces(forms, form)
    }
  }
  return [...forms]
}

function formsOf(value: string): string[] {
  return [value, ...urlForms(value), ...jsonForms(value), ...(value.length < minBase64Length ? [] : base64Forms(value))]
}

function addPieces(forms: Set<string>, form: string): void {
  if (form.length <= maxFormLength) {
    if (form.length >= minSecretLength) forms.add(form)
    return
  }
  // The last piece overlaps the one before, so that it is never too short to be safe.
  for (let at = 0; at < form.length; at += maxFormLength) {
    const start = Math.min(at, form.length - maxFormLength)
    forms.add(form.slice(start, start + maxFormLength))
  }
}

/** Lines are also printed one by one, indented, or with other line ends (a terminal makes `\r\n` of `\n`). */
function linesOf(value: string): string[] {
  if (!value.includes('\n')) return []
  return value
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.length >= minLineLength && !/^-----(BEGIN|END) .*-----$/.test(line))
}

/** As JavaScript writes it, as RFC 3986 has it, as forms are sent; spaces as `%20` and as `+`; hex digits large and small. */
function urlForms(value: string): string[] {
  const encoded = encodeURIComponent(value.toWellFormed())
  const strict = encoded.replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
  const asForm = new URLSearchParams([['', value]]).toString().slice(1)
  const forms = [encoded, strict, encoded.replaceAll('%20', '+'), strict.replaceAll('%20', '+'), asForm]
  return [...forms, ...forms.map((form) => form.replace(/%[0-9A-F]{2}/g, (hex) => hex.toLowerCase()))]
}

/** As JavaScript writes it, as Python does (ASCII only), as Go does (`<` as `\u003c`), as PHP does (`\/`); and once more inside a string. */
function jsonForms(value: string): string[] {
  const plain = JSON.stringify(value).slice(1, -1)
  const ascii = escapeUnicode(plain, /[\u007f-\uffff]/g)
  const forms = [plain, ascii, escapeUnicode(plain, /[<>&\u2028\u2029]/g), plain.replaceAll('/', '\\/')]
  return [...forms, JSON.stringify(plain).slice(1, -1), JSON.stringify(ascii).slice(1, -1)]
}

function escapeUnicode(text: string, characters: RegExp): string {
  return text.replace(characters, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/**
 * Base64 works on groups of three bytes, so the same secret looks different by what precedes it (`user:` in front of a password). For each
 * of the three positions: the characters that the secret alone decides, and the same with the end that it has when nothing follows.
 */
function base64Forms(value: string): string[] {
  const bytes = Buffer.from(value)
  const forms: string[] = []
  for (const before of [0, 1, 2]) {
    const whole = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64')
    const mixedAtStart = [0, 2, 3][before] ?? 0
    const unpadded = whole.replace(/=+$/, '')
    const decided = (before + bytes.length) % 3 === 0 ? unpadded : unpadded.slice(0, -1)
    forms.push(decided.slice(mixedAtStart), unpadded.slice(mixedAtStart), whole.slice(mixedAtStart))
  }
  const [, wholeFromStart = ''] = forms
  for (const width of base64LineLengths) {
    for (let at = 0; at < wholeFromStart.length && wholeFromStart.length > width; at += width) {
      const line = wholeFromStart.slice(at, at + width)
      if (line.length >= minLineLength) forms.push(line)
    }
  }
  return forms.flatMap((form) => [form, form.replaceAll('+', '-').replaceAll('/', '_')])
}
