import { createHash } from 'node:crypto'

/**
 * In which state the model last knew each file: read_files and edit_files write it down, edit_files asks. What a formatter, a checkout or a
 * person has changed since then is not overwritten from memory. Keys are real paths, so that a file has one entry however it was named.
 */
export interface FilesSeen {
  saw(path: string, fingerprint: string): void
  /** undefined: the model does not know the file, so there is nothing that it could be wrong about. */
  lastSeen(path: string): string | undefined
  /** The file is gone from there. */
  forget(path: string): void
}

export function createFilesSeen(): FilesSeen {
  const seen = new Map<string, string>()
  return {
    saw: (path, fingerprint) => void seen.set(path, fingerprint),
    lastSeen: (path) => seen.get(path),
    forget: (path) => void seen.delete(path),
  }
}

/** Of a file's bytes. Times and sizes do not do: a formatter may keep both. */
export function fingerprintOf(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('base64')
}
