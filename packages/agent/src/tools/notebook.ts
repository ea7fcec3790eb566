import { stripVTControlCharacters } from 'node:util'
import { z } from 'zod'
import { wholeCharacters } from '../live-output.ts'

/** A notebook's text is a string or a list of lines. */
const lines = z
  .union([z.string(), z.array(z.string())])
  .transform((text) => (Array.isArray(text) ? text.join('') : text))
const output = z.looseObject({
  output_type: z.string(),
  text: lines.optional(),
  data: z.record(z.string(), z.unknown()).optional(),
  ename: z.string().optional(),
  evalue: z.string().optional(),
  traceback: z.array(z.string()).optional(),
})
const notebook = z.looseObject({
  cells: z.array(
    z.looseObject({
      cell_type: z.string(),
      source: lines,
      outputs: z.array(output).optional(),
    }),
  ),
})

/** Of one output; tables and logs of thousands of lines say nothing more. */
const maxOutputCharacters = 4_000

/** A Jupyter notebook as people read it: its cells, and what they printed. undefined: it is none. */
export function notebookText(text: string): string | undefined {
  const parsed = notebook.safeParse(parseJson(text))
  if (!parsed.success) return undefined
  return parsed.data.cells
    .map(({ cell_type, source, outputs = [] }, index) => {
      const shown = outputs.map((one) => `[output]\n${outputText(one)}\n`).join('')
      return `[cell ${index + 1}, ${cell_type}]\n${source.replace(/\n?$/, '\n')}${shown}`
    })
    .join('\n')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function outputText({ output_type, text, data = {}, ename, evalue, traceback }: z.infer<typeof output>): string {
  if (output_type === 'error') return cut(traceback?.join('\n') ?? `${ename}: ${evalue}`)
  if (text !== undefined) return cut(text)
  const plain = lines.safeParse(data['text/plain'])
  const others = Object.keys(data).filter((type) => type !== 'text/plain')
  const note = others.length > 0 ? `[${others.join(', ')}: not shown]` : ''
  return [plain.success ? cut(plain.data) : '', note].filter((part) => part !== '').join('\n')
}

function cut(text: string): string {
  const clean = stripVTControlCharacters(text)
  return clean.length <= maxOutputCharacters ? clean : `${wholeCharacters(clean, maxOutputCharacters)}\n[… cut]`
}
