import CliTable from 'cli-table3'
import type { Output } from './output.ts'
import { printJsonList } from './output.ts'
import { oneLine } from './plain-text.ts'

export interface Column<Row> {
  title: string
  value: (row: Row) => string
  /** Colours the value; must not change its width. */
  paint?: (text: string, row: Row) => string
  /** May be cut, down to this many characters, when the terminal is narrow. */
  cutTo?: number
  /** Left out before anything is cut; the highest goes first. */
  dropOrder?: number
}

/** Prints a list in the format that was asked for. `empty` is said, on stderr, where a table would have no row. */
export function printList<Row>(
  output: Output,
  { rows, columns, empty }: { rows: readonly Row[]; columns: Column<Row>[]; empty: string },
): void {
  if (output.isJson) printJsonList(output, rows)
  else if (rows.length === 0) output.note(empty)
  else if (output.format === 'text') for (const line of tabbed(rows, columns)) output.line(line)
  else output.line(renderTable({ rows, columns, width: output.columns }))
}

/** As wide as it needs to be, and never wider than the terminal: whole columns go first, then text is cut. A line never wraps. */
export function renderTable<Row>(table: {
  rows: readonly Row[]
  columns: Column<Row>[]
  width: number | undefined
}): string {
  const { rows, width = Number.POSITIVE_INFINITY } = table
  let { columns } = table
  const cuttable = (list: Column<Row>[]) => list.find((column) => column.cutTo !== undefined)
  for (;;) {
    const natural = draw({ rows, columns })
    const excess = widthOf(natural) - width
    if (excess <= 0) return natural
    const cut = cuttable(columns)
    const cutWidth = cut && naturalWidth({ rows, column: cut }) - excess
    const droppable = columns.filter((column) => column.dropOrder !== undefined)
    if (cut && cutWidth !== undefined && (cutWidth >= (cut.cutTo ?? 0) || droppable.length === 0)) {
      return draw({ rows, columns, cut: { column: cut, width: Math.max(cutWidth, 4) } })
    }
    if (droppable.length === 0) return natural
    const last = droppable.reduce((a, b) => ((b.dropOrder ?? 0) > (a.dropOrder ?? 0) ? b : a))
    columns = columns.filter((column) => column !== last)
  }
}

function draw<Row>(options: {
  rows: readonly Row[]
  columns: Column<Row>[]
  cut?: { column: Column<Row>; width: number }
}): string {
  const { rows, columns, cut } = options
  const table = new CliTable({
    head: columns.map((column) => column.title),
    // The library's own colours ignore NO_COLOR.
    style: { head: [], border: [], compact: true },
    colWidths: columns.map((column) => (column === cut?.column ? cut.width : null)),
  })
  for (const row of rows) table.push(columns.map((column) => cell(row, column)))
  // The library may cut between the two halves of an emoji, and counts the one that stays as one cell wide.
  return table.toString().replaceAll(/\p{Surrogate}/gu, ' ')
}

function cell<Row>(row: Row, { value, paint }: Column<Row>): string {
  const text = oneLine(value(row))
  return paint ? paint(text, row) : text
}

/** A border consists of characters that are one cell wide each, so its length is the table's width whatever the cells hold. */
function widthOf(table: string): number {
  return table.split('\n')[0]?.length ?? 0
}

/** With its padding. */
function naturalWidth<Row>({ rows, column }: { rows: readonly Row[]; column: Column<Row> }): number {
  return widthOf(draw({ rows, columns: [column] })) - 2
}

const borders = ['top', 'bottom', 'left', 'mid', 'right'] as const
const noBorders = Object.fromEntries(
  [...borders.flatMap((side) => [side, `${side}-mid`, `${side}-left`, `${side}-right`]), 'middle'].map((name) => [
    name,
    '',
  ]),
)

/** Columns lined up with spaces, as `column -t` does. */
function tabbed<Row>(rows: readonly Row[], columns: Column<Row>[]): string[] {
  const table = new CliTable({ chars: noBorders, style: { 'padding-left': 0, 'padding-right': 2 } })
  table.push(
    columns.map((column) => column.title.toUpperCase()),
    ...rows.map((row) => columns.map((column) => oneLine(column.value(row)) || '-')),
  )
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
}

/** `NAME  value` lines for one object; empty values are left out. */
export function renderFields(fields: [string, string | undefined][]): string {
  const shown = fields.filter((field): field is [string, string] => field[1] !== undefined && field[1] !== '')
  const width = Math.max(...shown.map(([name]) => name.length))
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')
}
