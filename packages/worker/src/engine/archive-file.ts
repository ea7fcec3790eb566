import { getArchive } from './containers.ts'
import type { Engine } from './engine.ts'
import { readTar } from './tar-text.ts'

/**
 * One file of a container, running or not, as text. undefined: there is no such container or path, or it is no plain file. Rejects with TarRefused when it
 * is larger than `maxBytes`, and as `getArchive` does.
 */
export async function readArchiveFile(
  engine: Engine,
  container: string,
  { path, maxBytes }: { path: string; maxBytes: number },
): Promise<string | undefined> {
  const stream = await getArchive(engine, container, { path })
  if (!stream) return undefined
  for await (const { type, body } of readTar(stream, { maxBytes: maxBytes + archiveBytes, maxEntries: 1 })) {
    if (type !== 'file') return undefined
    const chunks: Buffer[] = []
    for await (const chunk of body) chunks.push(chunk)
    return Buffer.concat(chunks).toString('utf8')
  }
  return undefined
}

/** Heads of the entry, its padding, the archive's end. */
const archiveBytes = 16 * 1024
