/** There was no room for what was to be written: no block, no inode, or no more of a quota. */
export function isDiskFull(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT')
}

/** As Node throws it, where we know it without trying. */
export function noSpace(): Error {
  return Object.assign(new Error('No space is left on the disk.'), { code: 'ENOSPC' })
}
