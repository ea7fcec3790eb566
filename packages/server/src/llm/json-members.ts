/**
 * Finds and replaces top-level members of a JSON object without parsing the rest.
 *
 * A model request is mostly conversation: hundreds of kilobytes, at times images, of which the gateway needs three small members. Parsing
 * and writing all of it takes 7 ms a megabyte in which the process does nothing else (this: 1 ms), and would not give back the same bytes:
 * large integers lose digits, `1.0` becomes `1`, numeric keys move. What is not looked for is skipped, checked only as far as brackets and
 * quotes pair up; the provider judges it.
 */

interface JsonMember {
  value: unknown
  /** Offsets of the value's bytes; `end` is exclusive. */
  start: number
  end: number
}

export interface FoundMembers<Name extends string> {
  members: Partial<Record<Name, JsonMember>>
  /** Just after the opening brace: where a member can be added. */
  open: number
  isEmpty: boolean
}

const quote = 0x22
const backslash = 0x5c
const comma = 0x2c
const colon = 0x3a

/** Throws a `SyntaxError`, whose message shows nothing of the body. Duplicates of a wanted member are refused: readers disagree on which counts. */
export function findMembers<const Name extends string>(json: Buffer, names: readonly Name[]): FoundMembers<Name> {
  const members: Partial<Record<Name, JsonMember>> = {}
  let at = skipSpace(json, json[0] === 0xef && json[1] === 0xbb && json[2] === 0xbf ? 3 : 0)
  if (json[at] !== 0x7b) throw new SyntaxError('it is not an object')
  const open = ++at
  at = skipSpace(json, at)
  const isEmpty = json[at] === 0x7d
  while (!isEmpty) {
    const keyEnd = endOfString(json, at)
    const key = parseSlice(json, at, keyEnd)
    at = skipSpace(json, keyEnd)
    if (json[at] !== colon) throw unexpected(json, at)
    const start = skipSpace(json, at + 1)
    const end = endOfValue(json, start)
    const name = names.find((wanted) => wanted === key)
    if (name) {
      if (members[name]) throw new SyntaxError(`it has "${name}" twice`)
      members[name] = { value: parseSlice(json, start, end), start, end }
    }
    at = skipSpace(json, end)
    if (json[at] === 0x7d) break
    if (json[at] !== comma) throw unexpected(json, at)
    at = skipSpace(json, at + 1)
  }
  const rest = skipSpace(json, at + 1)
  if (rest < json.length) throw unexpected(json, rest)
  return { members, open, isEmpty }
}

/** The same object with some members set; everything else byte for byte as it was. */
export function setMembers<Name extends string>(
  json: Buffer,
  found: FoundMembers<Name>,
  values: Partial<Record<Name, unknown>>,
): Buffer {
  const edits = Object.entries(values).map(([name, value]) => {
    const member = found.members[name as Name]
    const text = JSON.stringify(value)
    if (member) return { start: member.start, end: member.end, text }
    return { start: found.open, end: found.open, text: `${JSON.stringify(name)}:${text}${found.isEmpty ? '' : ','}` }
  })
  const parts: Buffer[] = []
  let at = 0
  for (const edit of edits.sort((a, b) => a.start - b.start)) {
    parts.push(json.subarray(at, edit.start), Buffer.from(edit.text))
    at = edit.end
  }
  return Buffer.concat([...parts, json.subarray(at)])
}

function endOfValue(json: Buffer, start: number): number {
  const first = json[start]
  if (first === quote) return endOfString(json, start)
  if (first === 0x7b || first === 0x5b) return endOfBrackets(json, start)
  let at = start
  while (at < json.length && /[-+.\w]/.test(String.fromCharCode(json[at] ?? 0))) at++
  if (at === start) throw unexpected(json, at)
  return at
}

function endOfBrackets(json: Buffer, start: number): number {
  const closers: number[] = []
  for (let at = start; at < json.length; at++) {
    const byte = json[at]
    if (byte === quote) at = endOfString(json, at) - 1
    else if (byte === 0x7b || byte === 0x5b) closers.push(byte + 2)
    else if (byte === 0x7d || byte === 0x5d) {
      if (closers.pop() !== byte) throw unexpected(json, at)
      if (closers.length === 0) return at + 1
    }
  }
  throw unexpected(json, json.length)
}

/**
 * `indexOf` runs at the speed of memory: an image of 5 MB as base64 takes 0.2 ms. A loop over the bytes of each string, with a jump where
 * there are no quotes, was twice as slow on source code.
 */
function endOfString(json: Buffer, start: number): number {
  if (json[start] !== quote) throw unexpected(json, start)
  for (let at = json.indexOf(quote, start + 1); at !== -1; at = json.indexOf(quote, at + 1)) {
    let before = at - 1
    while (json[before] === backslash) before--
    if ((at - 1 - before) % 2 === 0) return at + 1
  }
  throw unexpected(json, json.length)
}

function skipSpace(json: Buffer, start: number): number {
  let at = start
  while (json[at] === 0x20 || json[at] === 0x0a || json[at] === 0x0d || json[at] === 0x09) at++
  return at
}

function parseSlice(json: Buffer, start: number, end: number): unknown {
  try {
    return JSON.parse(json.toString('utf8', start, end))
  } catch {
    throw new SyntaxError(`a value between byte ${start} and ${end} is not valid`)
  }
}

function unexpected(json: Buffer, at: number): SyntaxError {
  return new SyntaxError(at >= json.length ? 'it ends too early' : `it breaks off at byte ${at}`)
}
