import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { agentFolder, type BundleFile } from '@openoz/protocol'

type ProgramFile = Extract<BundleFile, { sha256: string }>

/** What starts a program of a bundle that nobody has relocated. */
export const bundleLoader = `${agentFolder}/lib/ld.so`

/**
 * The bytes of a file as they are in a bundle at `/agent`, also where the bundle has been relocated: so a machine's own installation can fill a
 * container's volume, and has the same hash.
 */
export async function* readBundleFile(folder: string, file: ProgramFile): AsyncGenerator<Buffer> {
  const place = file.interpreter && {
    ...file.interpreter,
    bytes: interpreterBytes(bundleLoader, file.interpreter.size),
  }
  let at = 0
  for await (const chunk of createReadStream(join(folder, file.path), { highWaterMark: 1024 * 1024 })) {
    const bytes = chunk as Buffer
    if (place) {
      const from = Math.max(place.offset, at)
      const to = Math.min(place.offset + place.size, at + bytes.length)
      if (from < to) place.bytes.copy(bytes, from - at, from - place.offset, to - place.offset)
    }
    at += bytes.length
    yield bytes
  }
}

/** A path with zeros behind it, as the system reads it. Throws a RangeError for one that is too long. */
export function interpreterBytes(path: string, size: number): Buffer {
  if (Buffer.byteLength(path) >= size) throw new RangeError(`${path} is longer than ${size - 1} bytes`)
  const bytes = Buffer.alloc(size)
  bytes.write(path)
  return bytes
}

export async function hashBundleFile(folder: string, file: ProgramFile): Promise<string> {
  const hash = createHash('sha256')
  for await (const bytes of readBundleFile(folder, file)) hash.update(bytes)
  return hash.digest('hex')
}

/** Of what the files are called, hold and are allowed; of nothing else, so that the same parts have the same hash wherever and whenever they are put together. */
export function bundleHash(files: readonly BundleFile[]): string {
  const lines = files.map((file) =>
    'link' in file ? `${file.path} -> ${file.link}\n` : `${file.path} ${file.mode.toString(8)} ${file.sha256}\n`,
  )
  return createHash('sha256').update(lines.sort().join('')).digest('hex')
}
