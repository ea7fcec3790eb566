import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import { createMasker } from './masking.ts'

const key = 'sk-Tz9/+p~q"w\\é K&d=7!'

function inPieces(secrets: string[], pieces: string[]): string {
  const stream = createMasker(secrets).stream('x')
  return pieces.map((piece) => stream.push(piece)).join('') + stream.flush()
}

/** All ways to cut a text once, and one character at a time. */
function expectSameForEverySplit(secrets: string[], text: string, expected: string): void {
  expect(createMasker(secrets).mask(text)).toBe(expected)
  for (let cut = 0; cut <= text.length; cut++) {
    expect(inPieces(secrets, [text.slice(0, cut), text.slice(cut)]), `cut at ${cut}`).toBe(expected)
  }
  expect(inPieces(secrets, text.split(''))).toBe(expected)
}

test('a secret is masked wherever its chunks are cut', () => {
  expectSameForEverySplit([key], `a ${key} b ${key}${key} c`, 'a *** b *** c')
})

test('the beginning of a secret that does not go on is given back unchanged', () => {
  expectSameForEverySplit(['abcabcabd'], 'xabcabcabcabdabcabcab', 'xabc***abcabcab')
  expectSameForEverySplit(['aaaab'], 'aaaaaaaabaaaa', 'aaaa***aaaa')
})

test('overlapping and nested secrets are covered by one mask', () => {
  expectSameForEverySplit(['secret-one', 'one-more', 'cret-'], 'a secret-one-more b', 'a *** b')
  expectSameForEverySplit(['password', 'password123'], 'password123 password12 password', '*** ***12 ***')
  expectSameForEverySplit(['12345', '0123456789'], '012345678 0123456789', '0***678 ***')
})

test.each([
  ['hex', (text: string) => encodeURIComponent(text)],
  ['lower-case hex', (text: string) => encodeURIComponent(text).replace(/%[A-F0-9]{2}/g, (hex) => hex.toLowerCase())],
  ['a form', (text: string) => new URLSearchParams({ k: text }).toString().slice(2)],
  ['JSON', (text: string) => JSON.stringify({ k: text })],
  ['JSON in JSON', (text: string) => JSON.stringify({ k: JSON.stringify({ k: text }) })],
  ['ASCII JSON', (text: string) => JSON.stringify(text).replace(/é/g, '\\u00e9')],
  ['Go’s JSON', (text: string) => JSON.stringify(text).replace(/&/g, '\\u0026')],
  ['PHP’s JSON', (text: string) => JSON.stringify(text).replaceAll('/', '\\/')],
])('%s forms are masked across chunks', (_name, encode) => {
  const text = `before ${encode(key)} after`
  const masked = createMasker([key]).mask(text)
  expect(masked).toMatch(/^before .*\*\*\*.* after$/)
  expect(masked.length).toBeLessThan(40)
  expectSameForEverySplit([key], text, masked)
})

test.each(['base64', 'base64url'] as const)('%s is masked at every position in its surroundings', (encoding) => {
  for (let before = 0; before < 7; before++) {
    for (let after = 0; after < 4; after++) {
      const plain = 'u'.repeat(before) + key + 'z'.repeat(after)
      const text = Buffer.from(plain).toString(encoding)
      const masked = createMasker([key]).mask(text)
      expect(masked).toContain('***')
      // What stays holds at most some bits of the first and last character of the secret, beside its surroundings.
      const rest = masked
        .split('***')
        .map((part) => Buffer.from(part, encoding).toString('latin1'))
        .join('')
      for (let i = 0; i + 2 <= key.length; i++) expect(rest).not.toContain(key.slice(i, i + 2))
      if (before < 3) expectSameForEverySplit([key], `Basic ${text} x`, `Basic ${masked} x`)
    }
  }
  expect(createMasker([key]).mask(Buffer.from(key).toString(encoding))).toBe('***')
})

test('a private key is masked whole, line by line, with other line ends, and in base64 of any line length', () => {
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  })
  const masker = createMasker([privateKey])
  const lines = privateKey.trim().split('\n')
  const body = lines.slice(1, -1)
  const wrapped = (width: number) =>
    (
      Buffer.from(privateKey)
        .toString('base64')
        .match(new RegExp(`.{1,${width}}`, 'g')) ?? []
    ).join('\n')
  const texts = [
    privateKey,
    privateKey.replaceAll('\n', '\r\n'),
    body.map((line) => `    ${line}`).join('\n'),
    JSON.stringify({ key: privateKey }),
    JSON.stringify({ key: body[3] }),
    wrapped(76),
    wrapped(64),
    wrapped(100_000),
  ]
  for (const text of texts) {
    const masked = masker.mask(text)
    expect(masked).toContain('***')
    for (const line of body) expect(masked).not.toContain(line.slice(0, 20))
    expect(masked.replace(/-----(BEGIN|END) PRIVATE KEY-----/g, '').length).toBeLessThan(text.length / 4)
  }
  expect(masker.mask('-----BEGIN PRIVATE KEY-----')).toBe('-----BEGIN PRIVATE KEY-----')
})

test('a secret of 100,000 characters is one mask', () => {
  const long = Array.from({ length: 20_000 }, (_, i) => String(i).padStart(5, 'x')).join('')
  expect(createMasker([long]).mask(`a ${long} b`)).toBe('a *** b')
  expect(inPieces([long], (`a ${long} b`.match(/.{1,777}/gs) ?? []) as string[])).toBe('a *** b')
})

test('values that are too short to be secrets are left alone', () => {
  const masker = createMasker(['', ' ', 'abc', '\n\n', 'true '])
  expect(masker.mask('abc is true')).toBe('abc is ***')
  expect(createMasker([]).mask('x')).toBe('x')
})

test('a stream holds back no more than what may become a secret', () => {
  const stream = createMasker(['hunter22']).stream('x')
  expect(stream.push('say hun')).toBe('say ')
  expect(stream.push('gry, hunter22')).toBe('hungry, ***')
  expect(stream.push('2 and')).toBe('2 and')
  expect(stream.push(' hunter')).toBe(' ')
  expect(stream.flush()).toBe('hunter')
  expect(stream.push('22')).toBe('22')
})

test('streams of different keys do not touch, and a flush forgets one', () => {
  const masker = createMasker(['hunter22'])
  expect(masker.stream('a').push('hunt') + masker.stream('b').push('er22')).toBe('er22')
  expect(masker.stream('a').push('er22')).toBe('***')
  const first = masker.stream('a')
  expect(masker.stream('a')).toBe(first)
  first.flush()
  expect(masker.stream('a')).not.toBe(first)
})

test('all strings of a JSON value are masked, and nothing else', () => {
  const masker = createMasker(['hunter22'])
  const value = {
    hunter22: ['x hunter22', { deep: 'hunter22' }],
    n: 12_345_678,
    b: true,
    z: null,
    u: undefined,
    __proto__: 1,
  }
  const copy = structuredClone(value)
  expect(masker.maskValue(value)).toEqual({ ...value, hunter22: ['x ***', { deep: '***' }] })
  expect(value).toEqual(copy)
  const odd = masker.maskValue(JSON.parse('{"__proto__":"hunter22"}'))
  expect(JSON.stringify(odd)).toBe('{"__proto__":"***"}')
  expect(masker.maskValue('hunter22')).toBe('***')
})

test('random texts over a small alphabet are masked like one search at a time would', () => {
  let seed = 42
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
    return Math.floor((seed / 2 ** 31) * below)
  }
  const word = (length: number) => Array.from({ length }, () => 'ab'[random(2)]).join('')
  for (let round = 0; round < 400; round++) {
    const secrets = Array.from({ length: 1 + random(4) }, () => word(4 + random(4)))
    const text = word(60)
    const covered = new Array<boolean>(text.length).fill(false)
    for (const secret of secrets) {
      for (let at = text.indexOf(secret); at >= 0; at = text.indexOf(secret, at + 1))
        covered.fill(true, at, at + secret.length)
    }
    const expected = [...text].map((char, i) => (covered[i] ? (covered[i - 1] ? '' : '***') : char)).join('')
    const pieces: string[] = []
    for (let at = 0; at < text.length; ) {
      const next = at + 1 + random(9)
      pieces.push(text.slice(at, next))
      at = next
    }
    expect(inPieces(secrets, pieces), `${secrets} in ${text}`).toBe(expected)
  }
})

test('output of 20 MB takes a fraction of a second, also when it is nearly a secret throughout', () => {
  const masker = createMasker([key, 'ghp_0123456789abcdefghijABCDEFGHIJ', `${'a'.repeat(60)}b`])
  const worst = 'a'.repeat(64 * 1024)
  const usual = 'The quick brown fox jumps over the lazy dog 0123456789.\n'.repeat(1200).slice(0, 64 * 1024)
  for (const chunk of [usual, worst]) {
    const stream = masker.stream('speed')
    const started = performance.now()
    let length = 0
    for (let i = 0; i < 320; i++) length += stream.push(chunk).length
    length += stream.flush().length
    expect(length).toBe(320 * 64 * 1024)
    expect(performance.now() - started).toBeLessThan(3_000)
  }
})
