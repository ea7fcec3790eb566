import { lstat } from 'node:fs/promises'
import { messageOf } from '@openoz/protocol'
import type { Edit } from './edit.ts'
import { errorCode, fileFailure } from './file-failure.ts'
import { type FilesSeen, fingerprintOf } from './files-seen.ts'
import { replaceText } from './replace-text.ts'
import { readSmallFile, readTextFile, type TextContent } from './text-file.ts'

/** One name that shall change. */
export interface PlannedFile {
  path: string
  change:
    | (TextContent & {
        kind: 'write'
        /** What was there: a text, something else, or nothing. */
        before: string | 'no_text' | undefined
        attributes: FileAttributes | undefined
      })
    /** The file that is at `from` now, as it is. */
    | { kind: 'move'; from: string }
    /** `movedTo`: it is only gone from here. */
    | { kind: 'remove'; before: string | 'no_text'; movedTo: string | undefined }
}

/** Of the file that was there, or of the one that was moved here. */
export interface FileAttributes {
  mode: number
  uid: number
  gid: number
}

interface DiskFile extends FileAttributes {
  isLink: boolean
  id: string
}

/** A name while edits are applied to it in memory. */
interface Draft {
  path: string
  onDisk: DiskFile | undefined
  now: Content | undefined
}
type Content =
  | { kind: 'on_disk'; draft: Draft }
  | { kind: 'text'; content: TextContent; attributes: FileAttributes | undefined }

interface Place {
  /** Reject for paths that may not be touched. */
  resolve: (name: string, what: 'content' | 'entry') => Promise<string>
  seen: FilesSeen
}

/**
 * Applies all edits in memory, in order, so that nothing is written before every one of them fits. Rejects, in words for the model, with the
 * first that does not. Content is read only where an edit needs it, so that files of any kind and size can be moved and deleted.
 */
export async function planEdits(edits: readonly Edit[], place: Place): Promise<PlannedFile[]> {
  const drafts = new Map<string, Draft>()
  async function open(name: string, what: 'content' | 'entry'): Promise<Draft> {
    const entry = await place.resolve(name, 'entry')
    const path = drafts.has(entry) ? entry : await place.resolve(name, what)
    const known = drafts.get(path)
    if (known) return known
    const onDisk = await look(path, name)
    const draft: Draft = { path, onDisk, now: undefined }
    if (onDisk) draft.now = { kind: 'on_disk', draft }
    if (onDisk && !onDisk.isLink) await refuseChanged(path, name, place.seen)
    drafts.set(path, draft)
    return draft
  }
  for (const [index, edit] of edits.entries()) {
    try {
      await apply(edit, open)
    } catch (error) {
      const problem = messageOf(error)
      const which = edits.length === 1 ? '' : `Edit ${index + 1} of ${edits.length}: `
      throw new Error(`${which}${problem} Nothing was written.`)
    }
  }
  return changesOf([...drafts.values()])
}

async function apply(edit: Edit, open: (name: string, what: 'content' | 'entry') => Promise<Draft>): Promise<void> {
  if (edit.type === 'create') {
    const draft = await open(edit.path, 'content')
    if (draft.now && !edit.overwrite) throw new Error(`${edit.path} exists already; use replace, or overwrite: true.`)
    const content = { text: edit.content, hasByteOrderMark: false }
    draft.now = { kind: 'text', content, attributes: draft.now && attributesOf(draft.now) }
    return
  }
  const draft = await open(edit.path, edit.type === 'replace' ? 'content' : 'entry')
  if (!draft.now) throw new Error(`${edit.path} does not exist.`)
  switch (edit.type) {
    case 'replace': {
      const content = await textOf(draft.now, edit.path)
      const text = replaceText(content.text, edit)
      draft.now = { kind: 'text', content: { ...content, text }, attributes: attributesOf(draft.now) }
      return
    }
    case 'delete':
      draft.now = undefined
      return
    case 'move': {
      const target = await open(edit.new_path, 'entry')
      if (target === draft || (target.onDisk && target.onDisk.id === draft.onDisk?.id && target.now)) {
        throw new Error(`${edit.path} and ${edit.new_path} are the same file here; rename it by a command if need be.`)
      }
      if (target.now) throw new Error(`${edit.new_path} exists already; delete it first.`)
      target.now = draft.now
      draft.now = undefined
      return
    }
    default:
      return edit satisfies never
  }
}

/** undefined when nothing is there. */
async function look(path: string, name: string): Promise<DiskFile | undefined> {
  try {
    const found = await lstat(path)
    if (found.isDirectory()) throw new Error(`${name} is a folder; use a command for folders.`)
    if (!found.isFile() && !found.isSymbolicLink()) throw new Error(`${name} is no regular file.`)
    const { uid, gid } = found
    return { isLink: found.isSymbolicLink(), id: `${found.dev}:${found.ino}`, mode: found.mode & 0o7777, uid, gid }
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw fileFailure(error, name)
  }
}

/** The model's picture of the file must be the file. Large ones are never in the picture. */
async function refuseChanged(path: string, name: string, seen: FilesSeen): Promise<void> {
  const known = seen.lastSeen(path)
  if (known === undefined) return
  const bytes = await readSmallFile(path, name)
  if (bytes !== 'too_large' && fingerprintOf(bytes) === known) return
  throw new Error(`${name} has changed since you read it; read it again before you edit it.`)
}

async function textOf(content: Content, name: string): Promise<TextContent> {
  if (content.kind === 'text') return content.content
  const { onDisk, path } = content.draft
  if (onDisk?.isLink) throw new Error(`${name} is a symbolic link; edit the file that it leads to.`)
  return readTextFile(path, name)
}

function attributesOf(content: Content): FileAttributes | undefined {
  if (content.kind === 'text') return content.attributes
  const { onDisk } = content.draft
  return onDisk && !onDisk.isLink ? onDisk : undefined
}

async function changesOf(drafts: readonly Draft[]): Promise<PlannedFile[]> {
  const movedTo = new Map<Draft, string>()
  for (const { path, now } of drafts) if (now?.kind === 'on_disk') movedTo.set(now.draft, path)
  const planned: PlannedFile[] = []
  for (const draft of drafts) {
    const { path, now, onDisk } = draft
    if (now?.kind === 'on_disk') {
      if (now.draft !== draft) planned.push({ path, change: { kind: 'move', from: now.draft.path } })
    } else if (now) {
      const before = onDisk && (await textBefore(draft))
      const { content, attributes } = now
      if (before !== content.text) planned.push({ path, change: { kind: 'write', ...content, before, attributes } })
    } else if (onDisk) {
      const before = await textBefore(draft)
      planned.push({ path, change: { kind: 'remove', before, movedTo: movedTo.get(draft) } })
    }
  }
  return planned
}

async function textBefore({ path, onDisk }: Draft): Promise<string | 'no_text'> {
  if (onDisk?.isLink) return 'no_text'
  return readTextFile(path, path).then(
    ({ text }) => text,
    () => 'no_text',
  )
}
