import type { SavedRepository } from '@openoz/protocol'

/** A repository as an agent says that it was saved. */
export function savedRepository(bundle_blob_id: string | null, diff_blob_id: string | null = null): SavedRepository {
  return {
    dir: 'app',
    branch: 'main',
    base: null,
    head: null,
    commits: 0,
    files_changed: 1,
    insertions: 1,
    deletions: 0,
    uncommitted: true,
    bundle_blob_id,
    diff_blob_id,
  }
}
