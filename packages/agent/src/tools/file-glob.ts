import { z } from 'zod'
import { pathText } from './edit.ts'
import { globFilter, globPattern } from './glob-patterns.ts'
import { searchFiles, searchPlace } from './ripgrep.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

const input = z.object({
  patterns: z
    .array(globPattern)
    .min(1)
    .max(20)
    .describe('Such as *.ts (in any folder), src/**/*.test.ts (from path on); !dist/** leaves out.'),
  path: pathText.optional().describe('The folder to look in. Default: the folder that commands start in.'),
  include_ignored: z.boolean().optional().describe('List what .gitignore leaves out, too. Default: false.'),
})
type Input = z.infer<typeof input>

const maxFiles = 1_000
const maxCharacters = 50_000

export const fileGlob: Tool<Input> = {
  name: 'file_glob',
  kind: 'search',
  describe: () =>
    `Lists files whose path fits one of the patterns, sorted. Leaves out what .gitignore leaves out, and .git folders. ` +
    `At most ${maxFiles} paths; total says how many there are.`,
  input,
  title: ({ patterns, path }) => `Find ${patterns.join(', ').slice(0, 120)}${path === undefined ? '' : ` in ${path}`}`,
  locations: ({ path }) => (path === undefined ? [] : [{ path }]),
  run: list,
}

async function list({ patterns, path = '.', include_ignored }: Input, call: ToolCall): Promise<ToolOutput> {
  const place = await searchPlace(path, call)
  const isWanted = globFilter(patterns)
  const files: string[] = []
  let total = 0
  let characters = 0
  const args = [
    '--files',
    '--null',
    '--hidden',
    '--sort=path',
    '--glob=!.git',
    ...(include_ignored ? ['--no-ignore'] : []),
  ]
  const end = await searchFiles({
    args: [...args, '--', place.target],
    folder: place.folder,
    call,
    separator: '\0',
    onRecord(record) {
      const found = record.replace(/^\.\//, '')
      if (!isWanted(found)) return true
      total += 1
      const name = place.nameOf(found)
      characters += name.length + 4
      if (files.length < maxFiles && characters <= maxCharacters) files.push(name)
      return true
    },
  })
  const isCut = files.length < total
  const cut = isCut ? `Only the first ${files.length} of ${total} are listed. Narrow the patterns.` : undefined
  const late = end === 'timed_out' ? 'The search took too long and was ended; there may be more.' : undefined
  const note = total === 0 && !late ? 'No file fits.' : undefined
  const said = [...files, cut ?? late ?? note].filter((line) => line !== undefined).join('\n')
  return {
    result: { files, total, cut: cut ?? late, note },
    content: [{ type: 'content', content: { type: 'text', text: said } }],
  }
}
