import { statfs } from 'node:fs/promises'
import { AppError } from '@openoz/protocol'

/** The error to throw when there was no room for `what` in `folder`. */
export async function diskFull(what: string, folder: string, cause?: unknown): Promise<AppError> {
  const free = await statfs(folder).then(
    ({ bavail, bsize }) => `${Math.floor((bavail * bsize) / 1024)} KiB`,
    () => 'an unknown amount is',
  )
  return new AppError('disk_full', { what, folder, free }, { cause })
}
