import { expect, test } from 'vitest'
import { createLiveOutput, createOutputDecoder } from './live-output.ts'

test('characters of four bytes survive any cut between chunks; NUL and invalid bytes become U+FFFD', () => {
  const bytes = Buffer.concat([Buffer.from('a😀b\0c'), Buffer.from([0xff, 0x64])])
  const decoder = createOutputDecoder()
  let text = ''
  for (const byte of bytes) text += decoder.push(Buffer.from([byte]))
  expect(text + decoder.end()).toBe('a😀b\uFFFDc\uFFFDd')
})

test('viewers get the first 64 Ki characters as they come, and then only the amount', () => {
  const shown: string[] = []
  const live = createLiveOutput((text) => shown.push(text))
  for (let i = 0; i < 100; i++) live.push('😀'.repeat(1000))
  live.end()
  const text = shown.join('')
  expect(text.length).toBeLessThan(66_000)
  expect(text).toContain('from here on it is not shown live')
  expect(text).toMatch(/\[\d+ more characters followed\.\]\n$/)
  expect(text.isWellFormed()).toBe(true)
})

test('a short output is shown as it is', () => {
  const shown: string[] = []
  const live = createLiveOutput((text) => shown.push(text))
  live.push('one\n')
  live.push('')
  live.end()
  expect(shown).toEqual(['one\n'])
})
