import { expect, test } from 'vitest'
import { createTerminalText } from './pseudo-terminal-text.ts'

function plain(pieces: string[]): string {
  const text = createTerminalText()
  return pieces.map((piece) => text.push(piece)).join('') + text.end()
}

test('colours, cursor movements, titles and line ends of a terminal become plain text, wherever the chunks are cut', () => {
  const printed =
    '\x1b]0;a title\x07\x1b[1;31mred\x1b[0m\r\n\x1b(B\x1b[?25l\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\x1b[2K\r50%\rdone\r\r\n\x1b7\x1b=\x07end'
  const expected = 'red\nlink\r50%\rdone\nend'
  expect(plain([printed])).toBe(expected)
  expect(plain(printed.split(''))).toBe(expected)
  for (let cut = 0; cut <= printed.length; cut++) {
    expect(plain([printed.slice(0, cut), printed.slice(cut)]), `cut at ${cut}`).toBe(expected)
  }
})

test('an escape that is no sequence loses only its first character, and one that never ends is let go', () => {
  expect(plain(['a\x1b\nb'])).toBe('a\nb')
  const text = createTerminalText()
  expect(text.push(`\x1b]${'x'.repeat(1_000)}`)).toBe('')
  expect(text.push('x'.repeat(10_000)).length).toBe(11_001)
})

test('what is held back at the end comes out', () => {
  expect(plain(['a\r'])).toBe('a\r')
  expect(plain(['a\x1b[3'])).toBe('a[3')
})
