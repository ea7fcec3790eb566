import { relative } from 'node:path'
import { z } from 'zod'
import { diskFull, isDiskFull } from '../disk-full.ts'
import { resolveInside } from './edit-path.ts'
import { edit, type PlannedFile, planEdits } from './edit-plan.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'
import { unifiedDiff } from './unified-diff.ts'
import { writeFiles } from './write-files.ts'

const input = z.object({ edits: z.array(edit).min(1).max(100) })
type Input = z.infer<typeof input>

/** What viewers and the model get of a diff; the files have the rest. */
const shownDiffCharacters = 20_000
const shownFileCharacters = 64_000

export const editFiles: Tool<Input> = {
  name: 'edit_files',
  kind: 'edit',
  describe: () =>
    `Creates, changes, moves and deletes text files of the workspace. Give all edits that belong together in one call: they are applied in ` +
    `order, and either all of them are written or none. Paths are relative to the folder that commands start in. Returns the diff.`,
  input,
  title: ({ edits }) => {
    const paths = [...new Set(edits.map((one) => one.path))]
    return `Edit ${paths.slice(0, 3).join(', ')}${paths.length > 3 ? ` and ${paths.length - 3} more` : ''}`
  },
  locations: ({ edits }) => [...new Set(edits.map((one) => one.path))].map((path) => ({ path })),
  run: editInWorkspace,
}

async function editInWorkspace({ edits }: Input, { workspace, signal }: ToolCall): Promise<ToolOutput> {
  signal.throwIfAborted()
  const resolvePath = (name: string) => resolveInside(name, workspace)
  const planned = (await planEdits(edits, resolvePath)).filter((file) => file.before !== file.after)
  try {
    await writeFiles(planned)
  } catch (error) {
    if (isDiskFull(error)) throw await diskFull('the edited files', workspace.folder, error)
    throw error
  }
  const shown = planned.map((file) => ({ ...file, name: relative(workspace.toolsFolder, file.path) }))
  const diff = shown.map(({ name, before, after }) => unifiedDiff(name, before, after)).join('')
  const result = { diff: diff.length > shownDiffCharacters ? `${diff.slice(0, shownDiffCharacters)}\n[… cut]` : diff }
  return { result: diff === '' ? { diff, note: 'Nothing changed.' } : result, content: shown.map(diffContent) }
}

function diffContent({ name, before, after }: PlannedFile & { name: string }) {
  if ((before?.length ?? 0) + (after?.length ?? 0) <= shownFileCharacters) {
    return { type: 'diff' as const, path: name, oldText: before ?? null, newText: after ?? '' }
  }
  const text = unifiedDiff(name, before, after).slice(0, shownDiffCharacters)
  return { type: 'content' as const, content: { type: 'text' as const, text } }
}
