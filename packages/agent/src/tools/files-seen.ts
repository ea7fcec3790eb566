import { createHash } from 'node:crypto'
import { join, relative, sep } from 'node:path'

/** Path and fingerprint. */
export type SeenFile = [path: string, fingerprint: string]

/** About 200 KB of a checkpoint, which is written after every call. */
const maxKept = 2_000

/**
 * In which state the model last knew each file: read_files and edit_files write it down, edit_files asks. What a formatter, a checkout or a
 * person has changed since then is not overwritten from memory. Keys are real paths, so that a file has one entry however it was named.
 *
 * It belongs to the conversation, not to the process: `toKeep` goes into its checkpoints, and `known` comes from there.
 */
export interface FilesSeen {
  saw(path: string, fingerprint: string): void
  /** undefined: the model does not know the file, so there is nothing that it could be wrong about. */
  lastSeen(path: string): string | undefined
  /** The file is gone from there. */
  forget(path: string): void
  /** The newest ones inside of the workspace, by their paths in it: the next one may be elsewhere. */
  toKeep(): SeenFile[]
}

/** `root`: the real path of the workspace. */
export function createFilesSeen(root: string, known: readonly SeenFile[] = []): FilesSeen {
  const seen = new Map(known.map(([path, fingerprint]) => [join(root, path), fingerprint]))
  return {
    saw(path, fingerprint) {
      // Oldest first.
      seen.delete(path)
      seen.set(path, fingerprint)
    },
    lastSeen: (path) => seen.get(path),
    forget: (path) => void seen.delete(path),
    toKeep() {
      const inside = [...seen].filter(([path]) => path.startsWith(`${root}${sep}`))
      return inside.slice(-maxKept).map(([path, fingerprint]) => [relative(root, path), fingerprint])
    },
  }
}

/** Of a file's bytes. Times and sizes do not do: a formatter may keep both. */
export function fingerprintOf(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('base64')
}
