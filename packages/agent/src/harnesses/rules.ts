import { constants } from 'node:fs'
import { open, realpath } from 'node:fs/promises'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { wholeCharacters } from '../live-output.ts'
import type { Workspace } from '../workspace/prepare.ts'

/** Where repositories keep their rules for agents: at their root, and in folders that have rules of their own. */
const ruleFiles = ['AGENTS.md', 'WARP.md', 'CLAUDE.md']
const maxRootCharacters = 40_000
const maxNestedCharacters = 12_000
/** Of nested rules with one tool result: a folder ten levels down may have that many. */
const maxNestedAtOnce = 30_000
/** No path of a file system is longer; what a model writes may be. */
const maxPathCharacters = 4_096

interface RuleText {
  /** The real path. */
  file: string
  name: string
  text: string
}

/** The rule files of each repository's root, as parts of the system prompt. */
export async function rootRules(workspace: Workspace): Promise<string[]> {
  const parts: string[] = []
  for (const { dir, folder } of rootsOf(workspace)) {
    const root = await realpath(folder).catch(() => folder)
    for (const { name, text } of await rulesIn(root, { root, maxCharacters: maxRootCharacters })) {
      parts.push(`# Rules of ${dir}, from ${name}\n\n${text}`)
    }
  }
  return parts
}

/**
 * Rules of the folders that these arguments of a tool lead into, below the repositories' roots and outermost first, without those already shown.
 * Undefined where there are none, and when the signal says to stop.
 */
export async function nestedRules(
  input: unknown,
  { workspace, shown, signal }: { workspace: Workspace; shown: readonly string[]; signal: AbortSignal },
): Promise<{ text: string; files: string[] } | undefined> {
  const found: RuleText[] = []
  for (const { folder } of rootsOf(workspace)) {
    const root = await realpath(folder).catch(() => undefined)
    if (root === undefined) continue
    for (const path of pathsIn(input)) {
      if (signal.aborted) return undefined
      const real = await realFolder(resolve(workspace.toolsFolder, path))
      for (const inside of foldersBetween(root, real)) {
        for (const rule of await rulesIn(inside, { root, maxCharacters: maxNestedCharacters })) {
          const isKnown = shown.includes(rule.file) || found.some(({ file }) => file === rule.file)
          if (!isKnown) found.push({ ...rule, name: relative(workspace.toolsFolder, join(inside, rule.name)) })
        }
      }
    }
  }
  if (found.length === 0) return undefined
  const text = found.map((rule) => `Rules for ${dirname(rule.name)}, from ${rule.name}:\n${rule.text}`).join('\n\n')
  return { text: cut(text, maxNestedAtOnce), files: found.map(({ file }) => file) }
}

/** A folder that is no repository has its own rules too. */
function rootsOf({ repositories, toolsFolder }: Workspace): { dir: string; folder: string }[] {
  if (repositories.length === 0) return [{ dir: 'this folder', folder: toolsFolder }]
  return repositories.map(({ dir, folder }) => ({ dir: `the repository ${dir}`, folder }))
}

/** Every text under the key `path` or `paths`, however deep: that is how the tools name files. */
function pathsIn(value: unknown, depth = 0): string[] {
  if (depth > 4 || typeof value !== 'object' || value === null) return []
  if (Array.isArray(value)) return value.slice(0, 100).flatMap((item) => pathsIn(item, depth + 1))
  return Object.entries(value).flatMap(([key, item]) => {
    if (key === 'path' && isPath(item)) return [item]
    if (key === 'paths' && Array.isArray(item)) return item.filter(isPath).slice(0, 100)
    return pathsIn(item, depth + 1)
  })
}

function isPath(value: unknown): value is string {
  return typeof value === 'string' && value.length <= maxPathCharacters
}

/** The nearest folder that exists; the path itself counts, since it may be one. */
async function realFolder(path: string): Promise<string> {
  const whole = await realpath(path).catch(() => undefined)
  if (whole !== undefined) return whole
  // From the top: no more steps than there are folders, however many the path names.
  let found: string = sep
  for (const name of path.split(sep)) {
    const next = await realpath(join(found, name)).catch(() => undefined)
    if (next === undefined) break
    found = next
  }
  return found
}

/** Folders from below the root down to this path, outermost first. None when it is outside. */
function foldersBetween(root: string, path: string): string[] {
  if (!path.startsWith(root + sep)) return []
  const names = relative(root, path).split(sep)
  return names.map((_, index) => join(root, ...names.slice(0, index + 1)))
}

/** Links to one another (`CLAUDE.md` to `AGENTS.md`) are read once. */
async function rulesIn(
  folder: string,
  { root, maxCharacters }: { root: string; maxCharacters: number },
): Promise<RuleText[]> {
  const rules: RuleText[] = []
  for (const name of ruleFiles) {
    const file = await realpath(join(folder, name)).catch(() => undefined)
    // A link that leads out of the repository would show the model a file of the machine.
    if (file === undefined || rules.some((rule) => rule.file === file) || !file.startsWith(root + sep)) continue
    const text = await beginningOf(file, maxCharacters * 4).catch(() => '')
    if (text.trim() !== '') rules.push({ file, name, text: cut(text, maxCharacters) })
  }
  return rules
}

/** Enough bytes for the characters that are shown: the file may be anything. */
async function beginningOf(file: string, maxBytes: number): Promise<string> {
  // Opening a pipe would wait for somebody who writes to it.
  await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
  if (!(await handle.stat()).isFile()) return ''
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(maxBytes), 0, maxBytes, 0)
  return buffer.toString('utf8', 0, bytesRead)
}

function cut(text: string, maxCharacters: number): string {
  const shown = wholeCharacters(text, maxCharacters)
  return shown.length < text.length ? `${shown}\n[cut here; the rest is in the file]` : shown
}
