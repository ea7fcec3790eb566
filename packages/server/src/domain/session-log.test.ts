import { expect, test } from 'vitest'
import { isTooDeep, storableJson, storableText, storableTime } from './session-log.ts'

test.each([
  ['plain', '"plain"'],
  ['nul \0 here', '"nul \ufffd here"'],
  ['lone \ud83d', '"lone \ufffd"'],
  ['pair 😀', '"pair 😀"'],
  // Backslashes that a user wrote are no escapes.
  ['\\u0000', '"\\\\u0000"'],
  ['\\\0', '"\\\\\ufffd"'],
  [undefined, 'null'],
])('JSON of %j can be stored', (value, text) => {
  expect(storableJson(value)).toBe(text)
})

test('keys are cleaned like values', () => {
  expect(JSON.parse(storableJson({ 'a\0': { b: ['\udc00'] } }))).toEqual({ 'a\ufffd': { b: ['\ufffd'] } })
})

test('text keeps what it can', () => {
  expect(storableText('a\0b\ud800c😀')).toBe('a\ufffdb\ufffdc😀')
})

test.each([
  ['2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z'],
  ['2026-01-02T03:04:05+02:00', '2026-01-02T01:04:05.000Z'],
  ['yesterday', null],
  ['', null],
  ['1969-12-31T23:59:59Z', null],
  ['+275760-09-13T00:00:00.000Z', null],
])('the time %j becomes %j', (at, stored) => {
  expect(storableTime(at)).toBe(stored)
})

test('200 levels are enough for anybody', () => {
  const nested = (levels: number) => JSON.parse(`${'['.repeat(levels)}${']'.repeat(levels)}`) as unknown
  expect(isTooDeep(nested(200))).toBe(false)
  expect(isTooDeep(nested(201))).toBe(true)
  expect(isTooDeep({ a: 'b', c: null, d: [1] })).toBe(false)
})
