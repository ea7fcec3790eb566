import { expect, test } from 'vitest'
import { mayColor } from './output.ts'

test('colours are for terminals, unless a variable says otherwise', () => {
  const write = () => {}
  const [terminal, pipe] = [{ write, isTTY: true }, { write }]
  expect([mayColor(terminal, {}), mayColor(pipe, {}), mayColor(terminal, { TERM: 'dumb' })]).toEqual([
    true,
    false,
    false,
  ])
  expect([mayColor(pipe, { FORCE_COLOR: '1' }), mayColor(terminal, { FORCE_COLOR: '0' })]).toEqual([true, false])
  expect([mayColor(terminal, { NO_COLOR: '' }), mayColor(terminal, { NO_COLOR: '1', FORCE_COLOR: '1' })]).toEqual([
    true,
    false,
  ])
})
