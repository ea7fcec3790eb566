import { basename, dirname, join } from 'node:path'

/**
 * The words that start another Node like this one. In a bundle whose programs do not name their own loader, this process is the loader for the system,
 * and `process.execPath` its path; the libraries lie beside it.
 */
export function nodeCommand(execPath: string = process.execPath): string[] {
  if (basename(execPath) !== 'ld.so') return [execPath]
  const lib = dirname(execPath)
  return [execPath, '--library-path', lib, join(dirname(lib), 'bin', 'node')]
}
