import { expect, test } from 'vitest'
import { createOutputFold, foldText } from './output-fold.ts'

const lines = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `line ${from + index}\n`).join('')

test('the beginning is shown as it comes, the end when it has ended, and the lines between are counted', () => {
  for (const size of [1, 3, 7, 1000]) {
    const fold = createOutputFold({ head: 3, tail: 2 })
    const text = lines(1, 20)
    let shown = ''
    for (let at = 0; at < text.length; at += size) shown += fold.push(text.slice(at, at + size))
    expect(shown).toBe(lines(1, 3))
    expect(fold.end()).toEqual({ hidden: 15, tail: lines(19, 20) })
  }
})

test('what is short is shown whole', () => {
  const marker = (hidden: number) => `(${hidden})`
  expect(foldText(lines(1, 5), { head: 3, tail: 2 }, marker)).toBe(lines(1, 5))
  expect(foldText('no line end', { head: 3, tail: 2 }, marker)).toBe('no line end')
  expect(foldText(lines(1, 6), { head: 3, tail: 2 }, marker)).toBe(`${lines(1, 3)}(1)\n${lines(5, 6)}`)
})

test('a line that does not end is cut', () => {
  const fold = createOutputFold({ head: 0, tail: 2 })
  for (let piece = 0; piece < 1000; piece++) fold.push('x'.repeat(100))
  const { hidden, tail } = fold.end()
  expect([hidden, tail.length]).toEqual([0, 4_000])
})
