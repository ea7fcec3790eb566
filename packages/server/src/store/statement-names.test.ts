import { expect, test } from 'vitest'
import { createStatementNames } from './statement-names.ts'

test('a name is the same for the same text, whichever server makes it, and short enough for PostgreSQL to tell it from others', () => {
  const [one, other] = [createStatementNames(), createStatementNames()]
  const text = `select ${'x'.repeat(10_000)} $1`
  expect(one.nameOf(text)).toBe(other.nameOf(text))
  expect(one.nameOf(text)).not.toBe(one.nameOf(`${text} `))
  expect(one.nameOf(text)?.length).toBeLessThan(64)
})

test('however many texts there are, only so many are named: names are kept by the database until the connection ends', () => {
  const names = createStatementNames(() => {}, 3)
  const named = Array.from({ length: 10 }, (_, i) => names.nameOf(`select ${i}, $1`))
  expect(named.filter((name) => name !== undefined)).toHaveLength(3)
  expect(names.nameOf('select 0, $1')).toBe(named[0])
})
