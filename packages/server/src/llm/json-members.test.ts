import { expect, test } from 'vitest'
import { findMembers, setMembers } from './json-members.ts'

const find = (json: string) => findMembers(Buffer.from(json), ['model', 'stream_options'])
const set = (json: string, values: Parameters<typeof setMembers<'model' | 'stream_options'>>[2]) =>
  setMembers(Buffer.from(json), find(json), values).toString()

test('a member is replaced and every other byte stays', () => {
  const json =
    '{ "seed": 12345678901234567890, "t":1.0,\n"mod\\u0065l" : "openai/x","2":{"model":"no"},"1":["}\\"{"] }\r\n'
  expect(find(json).members.model?.value).toBe('openai/x')
  expect(set(json, { model: 'x é' })).toBe(json.replace('"openai/x"', '"x é"'))
})

test('a missing member is added in front', () => {
  expect(set('{"model":"a"}', { model: 'b', stream_options: { include_usage: true } })).toBe(
    '{"stream_options":{"include_usage":true},"model":"b"}',
  )
  expect(set('{}', { model: 'b' })).toBe('{"model":"b"}')
})

test('strings that end in backslashes and hold quotes are passed over', () => {
  const json = JSON.stringify({ a: '\\', b: '"\\"', c: '\\\\"{[', d: 'ünï😀', model: 'm' })
  expect(find(json).members.model?.value).toBe('m')
  expect(find(`\ufeff${json}`).members.model?.value).toBe('m')
})

test.each([0, 1, 2, 3, 4, 511, 512, 513, 1024])(
  'a long string of %i plain bytes and then backslashes ends where it ends',
  (length) => {
    for (let backslashes = 0; backslashes < 5; backslashes++) {
      const text = `${'x'.repeat(length)}${'\\'.repeat(backslashes)}","model":"no","`
      expect(find(JSON.stringify({ a: text, b: `${text}${'y'.repeat(2000)}`, model: 'm' })).members.model?.value).toBe(
        'm',
      )
    }
  },
)

test.each([
  '',
  ' ',
  '[]',
  '"model"',
  '{',
  '{"model"',
  '{"model":',
  '{"model":"a',
  '{"model":"a"',
  '{"model":"a",}',
  '{"model":"a"}x',
  '{"model" "a"}',
  '{model:"a"}',
  '{"a":[}',
  '{"a":{]}}',
  '{"a":}',
  '{"model":tru}',
  '{"a":"\\"}',
  '{"a":[1,2}',
])('%j is refused', (json) => {
  expect(() => find(json)).toThrow(SyntaxError)
})

test('a wanted member that is there twice is refused, whichever way it is spelled', () => {
  expect(() => find('{"model":"a","mod\\u0065l":"b"}')).toThrow('it has "model" twice')
})

test('a refusal shows nothing of the body', () => {
  for (const json of ['{"model":"top secret', '{"model":top_secret}', '{"top secret":}'])
    expect(() => find(json)).toThrow(expect.objectContaining({ message: expect.not.stringContaining('secret') }))
})
