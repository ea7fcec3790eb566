import { expect, test } from 'vitest'
import { createOutput, type Output } from './output.ts'
import { type Column, printList, renderFields, renderTable } from './table.ts'

interface Row {
  id: string
  title: string
  note: string
}

const rows: Row[] = [
  { id: '0198c2f0', title: 'Make the failing test pass\nand commit', note: 'a' },
  { id: '0198c2f1', title: '日本語のタイトルは幅が二倍です', note: 'b' },
]
const columns: Column<Row>[] = [
  { title: 'id', value: (row) => row.id },
  { title: 'title', value: (row) => row.title, cutTo: 12 },
  { title: 'note', value: (row) => row.note, dropOrder: 1 },
]

function record(format: 'pretty' | 'text' | 'json' | 'ndjson'): {
  output: Output
  stdout: () => string
  stderr: () => string
} {
  let stdout = ''
  let stderr = ''
  const output = createOutput(format, {
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
    env: {},
  })
  return { output, stdout: () => stdout, stderr: () => stderr }
}

test('a table fits the terminal: first a column goes, then text is cut, and no line wraps', () => {
  const widthOf = (table: string) => table.split('\n')[0]?.length ?? 0
  const natural = renderTable({ rows, columns, width: undefined })
  expect(natural).toContain('Make the failing test pass and commit')
  expect(natural).toContain('note')

  const narrow = renderTable({ rows, columns, width: 45 })
  expect(widthOf(narrow)).toBeLessThanOrEqual(45)
  expect(narrow).toContain('…')

  const narrower = renderTable({ rows, columns, width: 30 })
  expect(widthOf(narrower)).toBeLessThanOrEqual(30)
  expect(narrower).not.toContain('note')
})

test('an emoji is not cut in two, wherever the cut falls', () => {
  const emojis = [{ id: '1', title: '🇩🇪🇩🇪🇩🇪🇩🇪🇩🇪👍👍🏽👍', note: '' }]
  for (let width = 22; width < 48; width++) {
    const table = renderTable({ rows: emojis, columns: columns.slice(0, 2), width })
    expect(table.isWellFormed()).toBe(true)
    expect(table.split('\n')[0]?.length).toBeLessThanOrEqual(width)
  }
})

test('as text, wide characters are lined up as a terminal shows them', () => {
  const { output, stdout } = record('text')
  printList(output, { rows: [{ id: '日本', title: 'a', note: '' }, ...rows], columns: columns.slice(0, 2), empty: '' })
  expect(stdout().split('\n').slice(0, 3)).toEqual([
    'ID        TITLE',
    '日本      a',
    expect.stringMatching(/^0198c2f0 {2}Make/),
  ])
})

test('each format of a list is what programs expect', () => {
  const json = record('json')
  printList(json.output, { rows, columns, empty: 'none' })
  expect(json.stdout()).toBe(JSON.stringify(rows))

  const ndjson = record('ndjson')
  printList(ndjson.output, { rows, columns, empty: 'none' })
  expect(ndjson.stdout()).toBe(`${rows.map((row) => JSON.stringify(row)).join('\n')}\n`)

  const text = record('text')
  printList(text.output, { rows, columns, empty: 'none' })
  expect(text.stdout().split('\n')[0]).toMatch(/^ID +TITLE +NOTE$/)
  expect(text.stdout().split('\n')).toHaveLength(4)
})

test('an empty list is empty on stdout, and said on stderr', () => {
  const pretty = record('pretty')
  printList(pretty.output, { rows: [], columns, empty: 'No rows.' })
  expect([pretty.stdout(), pretty.stderr()]).toEqual(['', 'No rows.\n'])

  const json = record('json')
  printList(json.output, { rows: [], columns, empty: 'No rows.' })
  expect([json.stdout(), json.stderr()]).toEqual(['[]', ''])
})

test('fields without a value are left out', () => {
  expect(
    renderFields([
      ['Name', 'Ada'],
      ['Email', undefined],
      ['Team', 'x'],
    ]),
  ).toBe('Name  Ada\nTeam  x')
})
