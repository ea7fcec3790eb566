import { lstatSync, realpathSync, type Stats, statSync } from 'node:fs'
import { dirname, sep } from 'node:path'
import { shellWord } from './shell-text.ts'

/**
 * What a task sees of the file system, as a shell script for the first process of its own mount and PID namespace. Folders are hidden by
 * an empty tmpfs on top (files by /dev/null); what the task needs from inside of them is put back at the same place. Before anything is hidden it is gathered
 * on a small stage, which stays reachable through an open descriptor.
 *
 * The script ends with 126, "cannot be started", when a mount fails. The command then runs without the right to undo any of it.
 */
interface TaskView {
  hidden: readonly string[]
  /** Folders and files that must stay where they are. */
  exposed: readonly string[]
  /** An empty folder for the stage. */
  stage: string
  workingFolder: string
}

export function initScript({ hidden, exposed, stage, workingFolder }: TaskView): string {
  const hides = outermostOrInside(hidden.flatMap(realName), exposed)
  const returning = [...new Set(exposed)].filter((path) => exists(path) && hides.some((hide) => isWithin(path, hide)))
  const steps: string[] = []
  if (returning.length > 0) {
    steps.push(`mount -t tmpfs -o mode=0700,size=1m tmpfs ${shellWord(stage)}`)
    for (const [index, path] of returning.entries()) {
      const place = shellWord(`${stage}/${index}`)
      steps.push(isFolder(path) ? `mkdir ${place}` : `: >${place}`, `mount --rbind ${shellWord(path)} ${place}`)
    }
    steps.push(`exec 3<${shellWord(stage)}`)
  }
  // Outer before inner: an inner one may lie in what an outer one brought back.
  const changes = [
    ...hides.map((path) => ({ path, steps: [hide(path)] })),
    ...returning.map((path, index) => ({ path, steps: bringBack(path, index) })),
  ]
  for (const change of changes.sort((a, b) => depth(a.path) - depth(b.path))) steps.push(...change.steps)
  if (returning.length > 0) steps.push('exec 3<&-')
  steps.push(`cd ${shellWord(workingFolder)}`)
  return `{ ${steps.join(' &&\n')}; } || {
  echo 'The task could not be shut in: a mount failed.' >&2
  exit 126
}
"$@"
exit $?
`
}

function bringBack(path: string, index: number): string[] {
  const target = shellWord(path)
  // Where an exposed parent was brought back before, the place is there already.
  const make = isFolder(path)
    ? `mkdir -p ${target}`
    : `mkdir -p ${shellWord(dirname(path))} && { [ -e ${target} ] || : >${target}; }`
  // -c: the path leads through the descriptor to the stage; its plain name is hidden by now.
  return [make, `mount -c --rbind /proc/self/fd/3/${index} ${target}`]
}

/** A folder inside a hidden one is hidden with it, unless something between the two comes back. */
function outermostOrInside(hides: string[], exposed: readonly string[]): string[] {
  const unique = [...new Set(hides)]
  return unique.filter((path) => {
    const outer = unique.find((other) => other !== path && isWithin(path, other))
    return outer === undefined || exposed.some((back) => isWithin(path, back) && isWithin(back, outer))
  })
}

/** A folder becomes empty, a file too. Files that are replaced by renaming come back into view, so folders are the better choice. */
function hide(path: string): string {
  const target = shellWord(path)
  return isFolder(path) ? `mount -t tmpfs -o mode=0755,size=1m tmpfs ${target}` : `mount --bind /dev/null ${target}`
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

function depth(path: string): number {
  return path.split(sep).length
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
