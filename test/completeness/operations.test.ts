import { expect, test } from 'vitest'
import { read } from './documents.ts'

/** What dies → the cells of its row. */
const rows = section('What happens when X dies')
  .split('\n')
  .filter((line) => line.startsWith('| '))
  .map((line) => line.slice(2, -2).split(' | '))
  .slice(2)

test('every row of what dies says what one sees and what one does', () => {
  expect(rows.length).toBeGreaterThan(20)
  for (const cells of rows) {
    expect(cells, cells[0]).toHaveLength(4)
    for (const cell of cells) expect(cell.trim(), cells[0]).not.toBe('')
  }
  expect(new Set(rows.map(([what]) => what)).size).toBe(rows.length)
})

test.each(rows.map(([what = '', , , proofs = '']) => ({ what, proofs })))(
  'what is said of "$what" is proven by tests that exist under the names that are given',
  ({ proofs }) => {
    const named = [...proofs.matchAll(/\[([^\]]+)\]\(\.\.\/([^)]+\.test\.ts)\)/g)]
    expect(named.length).toBeGreaterThan(0)
    expect(proofs.split('<br>')).toHaveLength(named.length)
    for (const [, title = '', file = ''] of named) expect(titlesIn(file), file).toContain(title)
  },
)

/** What a call names that takes a function, or options before one, behind it: `test('…', () => …)`, `])('…', { timeout }, async () => …)`. */
function titlesIn(file: string): string[] {
  return [...read(file).matchAll(/\(\s*'((?:[^'\\\n]|\\.)+)',\s*(?:async\b|\(|\{)/g)].map(([, title = '']) => title)
}

function section(heading: string): string {
  const [, after = ''] = read('docs/operations.md').split(`\n## ${heading}\n`)
  return after.split('\n## ')[0] ?? ''
}
