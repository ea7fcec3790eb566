import { expect, test } from 'vitest'
import { oneLine, plainText } from './plain-text.ts'

test('no escape sequence of a run reaches the terminal of who watches it', () => {
  expect(plainText('\u001b[31mred\u001b[0m \u001b]0;title\u0007\u001b]52;c;Zm9v\u0007done')).toBe('red done')
  expect(plainText('half a sequence: \u001b')).toBe('half a sequence: ')
  expect(plainText('right-to-left \u202etxt.exe')).toBe('right-to-left txt.exe')
  expect(plainText('8-bit \u009b31m')).not.toContain('\u009b')
})

test('lines and tabs stay, and a progress bar becomes lines', () => {
  expect(plainText('a\tb\r\nc')).toBe('a\tb\nc')
  expect(plainText('10%\r20%\r')).toBe('10%\n20%\n')
  expect(oneLine(' one\n two\t three ')).toBe('one two three')
})
