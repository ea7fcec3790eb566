import { relative } from 'node:path'
import { isDiskFull } from '@openoz/machine'
import { z } from 'zod'
import { diskFull } from '../disk-full.ts'
import { wholeCharacters } from '../live-output.ts'
import { edit } from './edit.ts'
import { resolveInside } from './edit-path.ts'
import { type PlannedFile, planEdits } from './edit-plan.ts'
import { fileFailure } from './file-failure.ts'
import { type FilesSeen, fingerprintOf } from './files-seen.ts'
import { encodeText } from './text-file.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'
import { unifiedDiff } from './unified-diff.ts'
import { writeFiles } from './write-files.ts'

const input = z.object({
  title: z.string().max(500).optional().describe('A few words for people on what the edits do.'),
  edits: z.array(edit).min(1).max(100),
})
type Input = z.infer<typeof input>

/** What viewers and the model get of a diff; the files have the rest. */
const shownDiffCharacters = 20_000
const shownFileCharacters = 64_000
/** All files of a call together: an event is no place for a tree. */
const shownCharacters = 256_000
/** For the diffs of a call together. The whole agent waits while they are made. */
const diffTimeMs = 2_000

export const editFiles: Tool<Input> = {
  name: 'edit_files',
  kind: 'edit',
  describe: () =>
    `Creates, changes, moves and deletes files of the workspace. Each edit has a type: create {path, content, overwrite?}, ` +
    `replace {path, old_text, new_text, replace_all?}, move {path, new_path}, delete {path}. Give all edits that belong together in one call: ` +
    `they are applied in order, and either all of them are written or none. Paths are relative to the folder that commands start in. A file that ` +
    `was changed by something else (a formatter, a command) since you read it must be read again first. Returns the diff.`,
  input,
  title: ({ title, edits }) => {
    if (title !== undefined && title.trim() !== '') return title
    const paths = pathsOf(edits)
    return `Edit ${paths.slice(0, 3).join(', ')}${paths.length > 3 ? ` and ${paths.length - 3} more` : ''}`
  },
  locations: ({ edits }) => pathsOf(edits).map((path) => ({ path })),
  run: editInWorkspace,
}

function pathsOf(edits: Input['edits']): string[] {
  return [...new Set(edits.flatMap((one) => (one.type === 'move' ? [one.path, one.new_path] : [one.path])))]
}

async function editInWorkspace({ edits }: Input, { workspace, signal, state }: ToolCall): Promise<ToolOutput> {
  signal.throwIfAborted()
  const resolve = (name: string, what: 'content' | 'entry') => resolveInside(name, workspace, what)
  const planned = await planEdits(edits, { resolve, seen: state.files })
  signal.throwIfAborted()
  try {
    await writeFiles(planned)
  } catch (error) {
    if (isDiskFull(error)) throw await diskFull('the edited files', workspace.folder, error)
    throw fileFailure(error, 'The files')
  }
  remember(planned, state.files)
  const nameOf = (path: string) => relative(workspace.toolsFolder, path)
  const deadline = performance.now() + diffTimeMs
  const shown = planned.flatMap((file) => show(file, nameOf, deadline))
  const diff = shown.map((one) => one.diff).join('')
  if (diff === '') return { result: { diff, note: 'Nothing changed.' } }
  const isCut = diff.length > shownDiffCharacters
  return {
    result: { diff: isCut ? `${wholeCharacters(diff, shownDiffCharacters)}\n[… cut; all edits were written.]` : diff },
    content: withinLimit(shown),
  }
}

function remember(planned: readonly PlannedFile[], seen: FilesSeen): void {
  const before = new Map(planned.map(({ path }) => [path, seen.lastSeen(path)]))
  for (const { path, change } of planned) {
    if (change.kind === 'write') seen.saw(path, fingerprintOf(encodeText(change)))
    else seen.forget(path)
  }
  for (const { path, change } of planned) {
    const known = change.kind === 'move' ? before.get(change.from) : undefined
    if (known !== undefined) seen.saw(path, known)
  }
}

type Content = NonNullable<ToolOutput['content']>[number]
interface Shown {
  diff: string
  content: Content
  characters: number
}

function show({ path, change }: PlannedFile, nameOf: (path: string) => string, deadline: number): Shown[] {
  const name = nameOf(path)
  if (change.kind === 'move') {
    const from = nameOf(change.from)
    return [asText(`diff --git a/${from} b/${name}\nsimilarity index 100%\nrename from ${from}\nrename to ${name}\n`)]
  }
  if (change.kind === 'remove' && change.movedTo !== undefined) return []
  const after = change.kind === 'write' ? change.text : undefined
  if (change.before === 'no_text')
    return [asText(`--- a/${name}\n+++ ${after === undefined ? '/dev/null' : `b/${name}`}\n[No text before.]\n`)]
  const { before } = change
  const diff = unifiedDiff(name, { before, after }, Math.min(1_000, deadline - performance.now()))
  const characters = (before?.length ?? 0) + (after?.length ?? 0)
  if (characters > shownFileCharacters) return [asText(diff)]
  return [{ diff, characters, content: { type: 'diff', path: name, oldText: before ?? null, newText: after ?? '' } }]
}

function asText(diff: string): Shown {
  const text = wholeCharacters(diff, shownDiffCharacters)
  return { diff, characters: text.length, content: { type: 'content', content: { type: 'text', text } } }
}

function withinLimit(shown: readonly Shown[]): Content[] {
  let room = shownCharacters
  const kept = shown.filter(({ characters }) => {
    room -= characters
    return room >= 0
  })
  const missing = shown.length - kept.length
  const note = asText(`${missing} more ${missing === 1 ? 'file was' : 'files were'} changed.`)
  return [...kept, ...(missing > 0 ? [note] : [])].map(({ content }) => content)
}
