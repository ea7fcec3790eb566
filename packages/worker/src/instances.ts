import { randomUUID } from 'node:crypto'
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { type FolderLock, lockFolder } from '@openoz/machine'
import { z } from 'zod'

/**
 * The worker processes of a state folder, one folder each: `<state>/instances/<uuid>/` with a lock (who lives) and `worker.json` (for which
 * worker id of which control plane, on which backend). A task's record names the instance that answers for it.
 *
 * Of the instances whose process is gone a process of the same worker id takes over what it can lock, with all of their tasks, and only then names
 * them in its hello: what such an instance held and the hello does not name was lost with it. Once the control plane has handled that hello their
 * folders go; a process that ends with nothing left to do removes its own.
 */
export interface Instances {
  readonly own: string
  /** Our own first, then those that were taken over. */
  readonly all: readonly string[]
  /** Takes over what has become free. True when there was something. */
  takeOver(): boolean
  /**
   * Whether tasks of this instance whose records name our worker are ours to adopt. One that does not say itself whose it is goes by them, and is taken
   * over here if it is free.
   */
  holds(instance: string | undefined): boolean
  /** Keeps a dead instance of another worker from being taken over meanwhile. undefined when it is not free. */
  borrow(instance: string | undefined): FolderLock | undefined
  /** The control plane has handled a hello that named these. */
  forget(named: readonly string[]): void
  /** Nothing is held afterwards. `isDone`: there is nothing left that a successor would have to know. */
  close(options: { isDone: boolean }): void
}

const workerFile = z.object({
  worker_id: z.string(),
  server_url: z.string(),
  /** Another one could not follow what it has left. Absent in files of versions that had but one. */
  backend: z.string().default('direct'),
})
type Whose = z.infer<typeof workerFile>

export function openInstances(stateDir: string, whose: Whose): Instances {
  const folder = join(stateDir, 'instances')
  const own: string = randomUUID()
  const locks = new Map<string, FolderLock>()
  const all = [own]
  const isOurs = (instance: string) => {
    const theirs = readWhose(join(folder, instance))
    return (
      theirs?.worker_id === whose.worker_id &&
      theirs.server_url === whose.server_url &&
      theirs.backend === whose.backend
    )
  }
  const list = () => readNames(folder).filter((name) => z.uuid().safeParse(name).success)

  const ownFolder = join(folder, own)
  mkdirSync(ownFolder, { recursive: true, mode: 0o700 })
  const lock = tryLock(ownFolder)
  if (lock) locks.set(own, lock)
  // Last: without it nobody takes the folder over.
  writeWhose(ownFolder, whose)
  syncFolder(folder)

  const take = (instance: string) => {
    const taken = tryLock(join(folder, instance))
    if (!taken) return false
    locks.set(instance, taken)
    all.push(instance)
    return true
  }

  return {
    own,
    all,
    takeOver() {
      const before = locks.size
      for (const instance of list()) {
        if (!locks.has(instance) && isOurs(instance)) take(instance)
      }
      return locks.size > before
    },
    holds(instance) {
      // What has no folder any more was given up by somebody who answers for it no longer.
      if (instance === undefined || locks.has(instance) || !list().includes(instance)) return true
      return readWhose(join(folder, instance)) === undefined && take(instance)
    },
    borrow(instance) {
      if (instance === undefined || locks.has(instance) || !list().includes(instance)) return { release() {} }
      return tryLock(join(folder, instance))
    },
    forget(named) {
      for (const instance of named) {
        if (instance === own || !locks.has(instance)) continue
        remove(folder, instance)
        locks.delete(instance)
      }
    },
    close({ isDone }) {
      for (const taken of locks.values()) taken.release()
      locks.clear()
      if (isDone) remove(folder, own)
    },
  }
}

function tryLock(folder: string): FolderLock | undefined {
  try {
    const lock = lockFolder(folder)
    return 'release' in lock ? lock : undefined
  } catch {
    // Removed in between.
    return undefined
  }
}

/** In one step, so that nobody finds half of it. */
function remove(folder: string, instance: string): void {
  const gone = join(folder, `.${instance}.gone`)
  try {
    renameSync(join(folder, instance), gone)
    rmSync(gone, { recursive: true, force: true })
  } catch {
    // Not there, or the disk does not let us: the next process takes it over and finds nothing of it.
  }
}

function readNames(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

/** Whole or not at all, also after a power cut: tasks are named after the instance from now on. */
function writeWhose(folder: string, whose: Whose): void {
  const file = join(folder, 'worker.json')
  const handle = openSync(`${file}.tmp`, 'w', 0o600)
  try {
    writeFileSync(handle, JSON.stringify(whose))
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
  renameSync(`${file}.tmp`, file)
  syncFolder(folder)
}

function syncFolder(folder: string): void {
  const handle = openSync(folder, 'r')
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

function readWhose(folder: string): Whose | undefined {
  try {
    return workerFile.parse(JSON.parse(readFileSync(join(folder, 'worker.json'), 'utf8')))
  } catch {
    return undefined
  }
}
