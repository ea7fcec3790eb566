import { copyFile, mkdir, stat, utimes, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { type GitOptions, git, gitAnswer, gitFailure, gitQuestion } from './git.ts'

/** What is the run's, and what was a person's before it, in a checkout that belongs to that person. */

/** A person's checkout as a run found it. */
export interface CheckoutStart {
  /** Everything in it, what nobody had committed included. */
  tree: string
  /** Where its branches, tags and the stash stood, by their full names. */
  refs: Record<string, string>
  /** Repositories inside of it, relative to it: a person's own. */
  nested: string[]
  /** What a save would have left out then. */
  leftOut: string[]
  /** Ours, for as long as the execution lives: what of the tree the repository itself does not have, and the index of that tree. */
  folder: string
}

/** `:mode mode id id status`, then the path: what `diff --raw -z` says of a file. */
const rawEntry = /^:\d+ (\d+) \S+ (\S+) \S+$/

/**
 * The tree of `onto` with the files that differ between two other trees as they are in the later one: what a run changed, without what else lay
 * about uncommitted.
 */
export async function withChangesOnly(
  { from, to, onto, index }: { from: string; to: string; onto: string; index: string },
  options: GitOptions,
): Promise<string> {
  const inIndex = { ...options, env: { ...options.env, GIT_INDEX_FILE: index } }
  await gitAnswer(['read-tree', onto], inIndex)
  const shape = ['--raw', '-r', '-z', '--no-renames', '--no-abbrev', '--no-ext-diff']
  const raw = (await gitAnswer(['diff-tree', ...shape, from, to], options)).split('\0')
  const lines: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const [, mode, id] = rawEntry.exec(raw[at] ?? '') ?? []
    if (mode !== undefined) lines.push(`${mode} ${id}\t${raw[at + 1]}\0`)
  }
  const args = ['update-index', '-z', '--replace', '--index-info']
  const result = await git(args, { ...inIndex, input: lines.join('') })
  if (result.exitCode !== 0 || result.hasTimedOut) throw gitFailure(args, result, options)
  return gitAnswer(['write-tree'], inIndex)
}

/** Branches, tags and the stash, by their full names. With `notMergedInto` those that this commit does not hold. */
export async function listRefs(
  options: GitOptions,
  { notMergedInto }: { notMergedInto?: string | null } = {},
): Promise<Record<string, string>> {
  const filter = notMergedInto ? [`--no-merged=${notMergedInto}`] : []
  const listing = ['for-each-ref', '--format=%(objectname) %(refname)', ...filter]
  const lines = (await gitQuestion([...listing, 'refs/heads', 'refs/tags', 'refs/stash'], options))?.split('\n') ?? []
  return Object.fromEntries(
    lines.filter((line) => line !== '').map((line) => [line.slice(line.indexOf(' ') + 1), line.split(' ', 1)[0] ?? '']),
  )
}

/**
 * New objects go into a folder of ours: nothing of what we look at or save is left behind in a person's repository. `upon`: another such
 * folder to build on, which knows the repository.
 */
export async function withOwnObjects(
  { objects, upon }: { objects: string; upon: string | undefined },
  options: GitOptions,
): Promise<GitOptions> {
  const known = upon ?? resolve(options.cwd, await gitAnswer(['rev-parse', '--git-path', 'objects'], options))
  await mkdir(join(objects, 'info'), { recursive: true })
  await writeFile(join(objects, 'info', 'alternates'), `${known}\n`)
  return { ...options, env: { ...options.env, GIT_OBJECT_DIRECTORY: objects } }
}

/** For a git that works in another repository. */
export function withoutOwnObjects({ GIT_OBJECT_DIRECTORY: _own, ...env }: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return env
}

/**
 * A git folder with the repository's objects and none of its refs: names that are only needed for a moment do not show up in a person's
 * repository, and two runs in one checkout do not meet there.
 */
export async function ownRefs(folder: string, options: GitOptions): Promise<GitOptions> {
  const path = async (name: string) => resolve(options.cwd, await gitAnswer(['rev-parse', '--git-path', name], options))
  const [objects, shallow] = [await path('objects'), await path('shallow')]
  const format = (await gitQuestion(['rev-parse', '--show-object-format'], options)) ?? 'sha1'
  await mkdir(folder, { recursive: true })
  const { GIT_WORK_TREE: _tree, GIT_INDEX_FILE: _index, ...env } = withoutOwnObjects(options.env)
  await gitAnswer(['init', '--quiet', '--bare', `--object-format=${format}`, folder], { ...options, env })
  await writeFile(join(folder, 'objects', 'info', 'alternates'), `${objects}\n`)
  await copyFile(shallow, join(folder, 'shallow')).catch(() => {})
  // A partial clone asks its remote for what it lacks, with the settings that it has for that.
  const isPartial = await gitQuestion(['config', '--get-regexp', '^remote\\..*\\.promisor$'], options)
  if (isPartial)
    await gitAnswer(['config', '--file', join(folder, 'config'), 'include.path', await path('config')], options)
  return { ...options, env: { ...env, GIT_DIR: folder } }
}

/** With its time: git reads files again that may have changed in the second in which the index was written. */
export async function copyIndex(from: string, to: string): Promise<void> {
  await copyFile(from, to)
  const { atime, mtime } = await stat(from)
  await utimes(to, atime, mtime)
}
