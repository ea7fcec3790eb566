import { type GitOptions, gitAnswer } from './git.ts'

interface RepositoryStatus {
  /** Untracked files that no ignore rule covers. */
  untracked: string[]
  /** Untracked folders that are repositories; without the slash at the end. */
  nested: string[]
  /** Submodules whose own files were changed. */
  dirtySubmodules: string[]
}

/** What `git add` alone would get wrong. Paths are relative to the repository's root. */
export async function readStatus(options: GitOptions): Promise<RepositoryStatus> {
  const text = await gitAnswer(['status', '--porcelain=v2', '-z', '--untracked-files=all', '--no-renames'], options)
  const status: RepositoryStatus = { untracked: [], nested: [], dirtySubmodules: [] }
  for (const entry of text.split('\0')) {
    if (entry.startsWith('? ')) {
      const path = entry.slice(2)
      // git lists files one by one and does not enter other repositories: a folder in the list is one of those.
      if (path.endsWith('/')) status.nested.push(path.slice(0, -1))
      else status.untracked.push(path)
    }
    // 1 XY S<c><m><u> mH mI mW hH hI path
    const changed = /^1 \S\S S(...) (?:\S+ ){5}(.*)$/s.exec(entry)
    if (changed?.[1] && /[MU]/.test(changed[1].slice(1))) status.dirtySubmodules.push(changed[2] ?? '')
  }
  return status
}
