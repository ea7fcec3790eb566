/** Placeholder contract; see the owner of this file. */
export interface FilesSeen {
  /** The file was read (or written by a tool) in this state. */
  saw(path: string, fingerprint: string): void
  /** The state in which the model last knew the file; undefined: it never did. */
  lastSeen(path: string): string | undefined
}

export function createFilesSeen(): FilesSeen {
  const seen = new Map<string, string>()
  return {
    saw: (path, fingerprint) => void seen.set(path, fingerprint),
    lastSeen: (path) => seen.get(path),
  }
}
