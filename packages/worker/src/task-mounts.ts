import { lstatSync, realpathSync, type Stats, statSync } from 'node:fs'
import { dirname, relative, sep } from 'node:path'
import { shellWord } from './shell-text.ts'

/**
 * What a task sees of the file system, as a shell script for the first process of its own mount and PID namespace. Folders are hidden by
 * an empty tmpfs on top (files by /dev/null); what the task needs from inside of them is put back at the same place. To reach that, the
 * shell goes into the folder before it is hidden: a path that begins there leads past the tmpfs. Every program of this script costs
 * each task's start 2 ms, so there are few.
 *
 * The script ends with 126, "cannot be started", when a mount fails. The command then runs without the right to undo any of it.
 */
interface TaskView {
  hidden: readonly string[]
  /** Folders and files that must stay where they are. */
  exposed: readonly string[]
  workingFolder: string
}

export function initScript({ hidden, exposed, workingFolder }: TaskView): string {
  // Outer before inner: an inner one may lie in what an outer one brought back.
  const hides = byDepth(outermostOrInside(hidden.flatMap(realName), exposed))
  const returning = byDepth([...new Set(exposed)].filter(exists))
  const steps = hides.flatMap((folder) =>
    hide(
      folder,
      returning.filter((path) => hides.findLast((other) => isWithin(path, other)) === folder),
    ),
  )
  steps.push(`cd ${shellWord(workingFolder)}`)
  return `{ ${steps.join(' &&\n')}; } || {
  echo 'The task could not be shut in: a mount failed.' >&2
  exit 126
}
"$@"
exit $?
`
}

/** A folder becomes empty but for what returns, a file empty. Files that are replaced by renaming come back into view, so folders are the better choice. */
function hide(path: string, returning: string[]): string[] {
  const target = shellWord(path)
  if (returning.includes(path)) return []
  if (!isFolder(path)) return [`mount --bind /dev/null ${target}`]
  const empty = `mount -t tmpfs -o mode=0755,size=1m tmpfs ${target}`
  if (returning.length === 0) return [empty]
  const places = returning.map((inside) => (isFolder(inside) ? inside : dirname(inside)))
  const bringBack = returning.flatMap((inside) => {
    const place = shellWord(inside)
    // -c: made absolute, the path would lead to the tmpfs.
    const bind = `mount -c --rbind ${shellWord(`./${relative(path, inside)}`)} ${place}`
    return isFolder(inside) ? [bind] : [`{ [ -e ${place} ] || : >${place}; }`, bind]
  })
  return [`cd ${target}`, empty, `mkdir -p ${places.map(shellWord).join(' ')}`, ...bringBack]
}

/** A folder inside a hidden one is hidden with it, unless something between the two comes back. */
function outermostOrInside(hides: string[], exposed: readonly string[]): string[] {
  const unique = [...new Set(hides)]
  return unique.filter((path) => {
    const outer = unique.find((other) => other !== path && isWithin(path, other))
    return outer === undefined || exposed.some((back) => isWithin(path, back) && isWithin(back, outer))
  })
}

/** A link to a hidden folder would only be replaced. */
function realName(path: string): string[] {
  try {
    const real = realpathSync(path)
    return real === sep ? [] : [real]
  } catch {
    return []
  }
}

export function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === sep ? sep : `${folder}${sep}`)
}

function byDepth(paths: string[]): string[] {
  const depth = (path: string) => path.split(sep).length
  return paths.sort((a, b) => depth(a) - depth(b))
}

function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}

/** Folders on the way to `path` that somebody who is neither owner nor in the group cannot pass, outermost first. */
export function closedFolders(path: string): string[] {
  const closed: string[] = []
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const stat: Stats | undefined = statSync(folder, { throwIfNoEntry: false })
    if (stat && (stat.mode & 0o001) === 0) closed.unshift(folder)
    if (folder === dirname(folder)) return closed
  }
}
