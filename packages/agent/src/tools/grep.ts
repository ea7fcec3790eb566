import { z } from 'zod'
import { pathText } from './edit.ts'
import { globFilter, globPattern } from './glob-patterns.ts'
import { searchFiles, searchPlace } from './ripgrep.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

const input = z.object({
  queries: z
    .array(
      z
        .string()
        .min(1)
        .max(4_000)
        .refine((text) => !/[\0\n]/.test(text), 'must not hold line breaks or NUL characters'),
    )
    .min(1)
    .max(20)
    .describe('Regular expressions (Rust syntax); a line is found when any of them fits. Write \\( for a bracket.'),
  path: pathText.optional().describe('The folder or file to search. Default: the folder that commands start in.'),
  case_sensitive: z.boolean().optional().describe('Default: true.'),
  include: z
    .array(globPattern)
    .max(20)
    .optional()
    .describe('Only files that fit one of these, such as *.ts or src/**.'),
  include_ignored: z.boolean().optional().describe('Search what .gitignore leaves out, too. Default: false.'),
})
type Input = z.infer<typeof input>

const maxMatches = 500
const maxCharacters = 50_000
const maxLineCharacters = 400
/** Generated files beyond this say nothing to a reader. */
const maxFileSize = '20M'

export const grep: Tool<Input> = {
  name: 'grep',
  kind: 'search',
  describe: () =>
    `Searches the text of files for regular expressions and returns the lines with their numbers, by path. Leaves out what .gitignore leaves ` +
    `out, .git folders, binary files and files above ${maxFileSize}B. At most ${maxMatches} lines, each cut at ${maxLineCharacters} characters.`,
  input,
  title: ({ queries, path }) => `Search ${path ?? 'the folder'} for ${queries.join(', ').slice(0, 120)}`,
  locations: ({ path }) => (path === undefined ? [] : [{ path }]),
  run: search,
}

async function search(input: Input, call: ToolCall): Promise<ToolOutput> {
  const place = await searchPlace(input.path ?? '.', call)
  const isWanted = globFilter(input.include ?? [])
  const files = new Map<string, { line: number; text: string }[]>()
  let matches = 0
  let characters = 0
  const end = await searchFiles({
    args: [...options(input), '--', place.target],
    folder: place.folder,
    call,
    separator: '\n',
    onRecord(record) {
      const match = parseMatch(record)
      if (!match || !isWanted(match.path)) return true
      if (matches >= maxMatches || characters >= maxCharacters) return false
      const path = place.nameOf(match.path)
      const text = call.masker.mask(match.text)
      matches += 1
      characters += text.length + 20
      files.set(path, [...(files.get(path) ?? []), { line: match.line, text }])
      return true
    },
  })
  const found = [...files].map(([path, lines]) => ({ path, matches: lines }))
  const cut = {
    complete: undefined,
    stopped: `There is more than these ${matches} lines. Narrow the search: a longer query, a path, include.`,
    timed_out: 'The search took too long and was ended; there may be more. Narrow it by path.',
  }[end]
  const note = found.length === 0 && cut === undefined ? 'Nothing was found.' : undefined
  const shown = found.flatMap(({ path, matches: lines }) => lines.map(({ line, text }) => `${path}:${line}: ${text}`))
  const said = [...shown, cut ?? note].filter((line) => line !== undefined).join('\n')
  return { result: { files: found, cut, note }, content: [{ type: 'content', content: { type: 'text', text: said } }] }
}

function options({ queries, case_sensitive = true, include_ignored }: Input): string[] {
  return [
    '--line-number',
    '--with-filename',
    '--no-heading',
    '--null',
    '--hidden',
    // One thread, but the same answer every time, also where it is cut.
    '--sort=path',
    '--glob=!.git',
    `--max-filesize=${maxFileSize}`,
    `--max-columns=${maxLineCharacters}`,
    '--max-columns-preview',
    ...(case_sensitive ? [] : ['--ignore-case']),
    ...(include_ignored ? ['--no-ignore'] : []),
    ...queries.map((query) => `--regexp=${query}`),
  ]
}

/** `./path` NUL `line:text`. Anything else is ripgrep's own word on a file that turned out to be binary. */
function parseMatch(record: string): { path: string; line: number; text: string } | undefined {
  const [, path, line, text] = /^(?:\.\/)?([^\0]*)\0(\d+):(.*)$/s.exec(record) ?? []
  if (path === undefined || text === undefined) return undefined
  return { path, line: Number(line), text: text.replace(/\r$/, '') }
}
