import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type GitOptions, gitAnswer } from './git.ts'

interface RepositoryStatus {
  /** Untracked files that no ignore rule covers. */
  untracked: string[]
  /** Tracked files that are there and differ from the last commit. */
  changed: string[]
  /** Untracked folders that are repositories; without the slash at the end. */
  nested: string[]
  /** Submodules with another commit or other files than the last commit of this repository says. */
  changedSubmodules: string[]
}

/** XY S<c><m><u> mH mI mW hH hI path */
const ordinary = /^1 .. (\S{4}) (?:\S+ ){5}(.*)$/s
/** XY S<c><m><u> m1 m2 m3 mW h1 h2 h3 path */
const conflict = /^u .. (\S{4}) (?:\S+ ){7}(.*)$/s

/** What `git add` alone would get wrong. Paths are relative to the repository's root. */
export async function readStatus(options: GitOptions): Promise<RepositoryStatus> {
  const text = await gitAnswer(['status', '--porcelain=v2', '-z', '--untracked-files=all', '--no-renames'], options)
  const status: RepositoryStatus = { untracked: [], changed: [], nested: [], changedSubmodules: [] }
  for (const entry of text.split('\0')) {
    if (entry.startsWith('? ')) {
      const path = entry.slice(2)
      // git lists files one by one and does not enter other repositories: a folder in the list is one of those.
      if (path.endsWith('/')) status.nested.push(path.slice(0, -1))
      else status.untracked.push(path)
      continue
    }
    const changed = ordinary.exec(entry) ?? conflict.exec(entry)
    if (!changed) continue
    const [, submodule = '', path = ''] = changed
    if (submodule.startsWith('S')) status.changedSubmodules.push(path)
    else status.changed.push(path)
  }
  return status
}

/** What git notes in its own folder of what a person (or the run) has begun and not ended. */
const operations = {
  'rebase-merge': 'rebase',
  'rebase-apply': 'rebase',
  MERGE_HEAD: 'merge',
  CHERRY_PICK_HEAD: 'cherry-pick',
  REVERT_HEAD: 'revert',
  BISECT_LOG: 'bisect',
}

export function operationsUnderWay(gitFolder: string): string[] {
  const found = Object.entries(operations).filter(([name]) => existsSync(join(gitFolder, name)))
  return found.map(([, operation]) => operation)
}
