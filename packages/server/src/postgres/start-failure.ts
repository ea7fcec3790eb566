/** What PostgreSQL says in its own words when it does not start, as an error for people. */
import { AppError } from '@openoz/protocol'
import { diskFull, freeBytes } from './data-dir.ts'

/** PostgreSQL needs a new 16 MB segment of its write-ahead log now and then; below this much a silent failure is a full disk. */
const scarceBytes = 4e6

const linesShown = 5

/** `output`: what initdb or the postmaster printed during this attempt. */
export function explainStartFailure(dataDir: string, output: string, fallback: string): AppError {
  if (/No space left on device|Disk quota exceeded/.test(output)) return diskFull(dataDir)
  const missing = /error while loading shared libraries: (\S+):/.exec(output)?.[1]
  if (missing) {
    const platform = `${process.platform}-${process.arch} without the system library ${missing}`
    return new AppError('postgres_unsupported_platform', { platform })
  }
  const nameless = /could not look up effective user ID (\d+)/.exec(output)?.[1]
  if (nameless) {
    const problem = `initdb wants a name for user id ${nameless}, and this machine has none (/etc/passwd). Add one, start as a user that has one, or give a database of your own with DATABASE_URL.`
    return new AppError('postgres_start_failed', { dataDir, problem })
  }
  if (/Read-only file system/.test(output)) {
    return new AppError('data_dir_not_writable', { dataDir, problem: 'its file system is read-only' })
  }
  const free = freeBytes(dataDir)
  // On a full disk it may be unable to write even the reason.
  if (free !== undefined && free < scarceBytes) return diskFull(dataDir)
  const lastLines = output.trimEnd().split('\n').filter(Boolean).slice(-linesShown)
  const problem = lastLines.length > 0 ? `its last words were\n  ${lastLines.join('\n  ')}\n` : `${fallback}.`
  return new AppError('postgres_start_failed', { dataDir, problem })
}

/** Remains of a killed postmaster that end by themselves within seconds: children that have not noticed, a lock not yet free. */
export function isLeftoverOfKilled(output: string): boolean {
  return /pre-existing shared memory block|lock file ".*" already exists/.test(output)
}
