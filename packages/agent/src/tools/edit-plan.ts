import { z } from 'zod'
import { replaceText } from './replace-text.ts'
import { readTextFile, type TextFile } from './text-file.ts'

const path = z
  .string()
  .min(1)
  .max(4096)
  .refine((text) => !text.includes('\0'), 'must not hold NUL characters')

export const edit = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('create'),
    path,
    content: z.string(),
    overwrite: z.boolean().optional().describe('Replace the file if it exists. Default: that is an error.'),
  }),
  z.object({
    type: z.literal('replace'),
    path,
    old_text: z.string().min(1).describe('Exactly as in the file, with its whitespace, and only once in it.'),
    new_text: z.string(),
    replace_all: z.boolean().optional().describe('Replace every occurrence. Default: there must be exactly one.'),
  }),
  z.object({ type: z.literal('move'), path, new_path: path }),
  z.object({ type: z.literal('delete'), path }),
])
export type Edit = z.infer<typeof edit>

/** One file that shall change. `undefined` is no file. */
export interface PlannedFile {
  path: string
  before: string | undefined
  after: string | undefined
  hasByteOrderMark: boolean
  /** Of the file that was there, or of the one that was moved here. */
  mode: number | undefined
}

/** A file while edits are applied to it in memory. */
interface Draft {
  path: string
  before: TextFile | undefined
  now: TextFile | undefined
}

/**
 * Applies all edits in memory, in order, so that nothing is written before every one of them fits. Rejects, in words for the model, with the
 * first that does not; `resolvePath` rejects for paths that may not be touched.
 */
export async function planEdits(
  edits: readonly Edit[],
  resolvePath: (name: string) => Promise<string>,
): Promise<PlannedFile[]> {
  const drafts = new Map<string, Draft>()
  async function open(name: string): Promise<Draft> {
    const path = await resolvePath(name)
    const known = drafts.get(path)
    if (known) return known
    const before = await readTextFile(path, name)
    const draft = { path, before, now: before }
    drafts.set(path, draft)
    return draft
  }
  for (const [index, edit] of edits.entries()) {
    try {
      await apply(edit, open)
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error)
      const which = edits.length === 1 ? '' : `Edit ${index + 1} of ${edits.length}: `
      throw new Error(`${which}${problem} Nothing was written.`)
    }
  }
  return [...drafts.values()].map(({ path, before, now }) => ({
    path,
    before: before?.text,
    after: now?.text,
    hasByteOrderMark: now?.hasByteOrderMark ?? false,
    mode: now?.mode,
  }))
}

async function apply(edit: Edit, open: (name: string) => Promise<Draft>): Promise<void> {
  const draft = await open(edit.path)
  if (edit.type === 'create') {
    if (draft.now && !edit.overwrite) throw new Error(`${edit.path} exists already; use replace, or overwrite: true.`)
    draft.now = { text: edit.content, hasByteOrderMark: false, mode: draft.now?.mode ?? newFileMode() }
    return
  }
  const { now } = draft
  if (!now) throw new Error(`${edit.path} does not exist.`)
  switch (edit.type) {
    case 'replace':
      draft.now = { ...now, text: replaceText(now.text, edit) }
      return
    case 'delete':
      draft.now = undefined
      return
    case 'move': {
      const target = await open(edit.new_path)
      if (target === draft) throw new Error(`${edit.path} and ${edit.new_path} are the same file.`)
      if (target.now) throw new Error(`${edit.new_path} exists already; delete it first.`)
      target.now = now
      draft.now = undefined
      return
    }
    default:
      return edit satisfies never
  }
}

function newFileMode(): number {
  return 0o666 & ~process.umask()
}
