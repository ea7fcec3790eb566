import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isLockName, lockFolder } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import {
  type Installation,
  type InstallPlaces,
  installationFile,
  makeFolder,
  readInstallation,
  removeFolders,
} from './installation.ts'

interface LockedInstallation {
  /** As it is written; undefined where nothing is installed. */
  before: Installation | undefined
  /** The same to be changed, or a new one. */
  installation: Installation
}

/**
 * One set-up, join or leave at a time: two would start two workers on one state folder, and write one of them down. The lock is in the config folder,
 * which is made for it, and goes with it when `work` has left nothing else there. Rejects with `installation_busy`.
 */
export async function withInstallation<T>(
  places: InstallPlaces,
  work: (locked: LockedInstallation) => Promise<T>,
): Promise<T> {
  const made: Pick<Installation, 'folders'> = { folders: [] }
  await makeFolder(places.config, made, 0o700)
  const lock = lockFolder(places.config)
  if ('heldBy' in lock) throw new AppError('installation_busy', { pid: lock.heldBy })
  try {
    const before = await readInstallation(places)
    // One that holds nothing but locks was made by somebody who was killed, or refused.
    if (!before && made.folders.length === 0 && (await readdir(places.config)).every(isLockName))
      made.folders.push(places.config)
    const installation: Installation = before
      ? { ...before, folders: [...before.folders] }
      : { folders: [...made.folders] }
    return await work({ before, installation })
  } finally {
    // With the highest, which is ours, the last: nobody is there to be kept out any more.
    const locks = (await readdir(places.config)).filter(isLockName)
    for (const name of locks) await rm(join(places.config, name), { force: true })
    await removeFolders(made)
  }
}

export async function removeInstallationFile(places: InstallPlaces): Promise<void> {
  await rm(installationFile(places), { force: true })
}
