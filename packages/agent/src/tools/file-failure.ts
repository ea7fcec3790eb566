const reasons: Record<string, string> = {
  EACCES: 'permission denied',
  EPERM: 'the system does not permit it',
  EROFS: 'the file system is read-only',
  ELOOP: 'its symbolic links lead in a circle',
  ENAMETOOLONG: 'the name is too long',
  ENOTDIR: 'a part of this path is a file, not a folder',
  EISDIR: 'it is a folder',
  EBUSY: 'the system uses it, for example as a mount point',
  ETXTBSY: 'it is a program that runs at the moment',
}

/** What the system says of a file, in words for the model and with the path as the model wrote it. Anything else is given back as it came. */
export function fileFailure(error: unknown, shownPath: string): unknown {
  const reason = reasons[errorCode(error) ?? '']
  return reason === undefined ? error : new Error(`${shownPath}: ${reason}.`, { cause: error })
}

export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}
