/**
 * Tar archives, as the engine's archive calls take and give them. What comes out of a container was made by whoever worked there: names are
 * checked, links are told as links and never followed, and nothing is held that is larger than the caller allows.
 */

import { Readable } from 'node:stream'
import { extract, pack } from 'tar-stream'

export interface TarEntry {
  /** Without a slash before it. */
  name: string
  type?: 'file' | 'directory'
  mode?: number
  uid?: number
  gid?: number
  body?: string | Buffer
}

/** In the order given. Dates are 1970, so that the same entries are the same bytes. Modes default to 0600 and 0700, owners to root. */
export async function tarOf(entries: TarEntry[]): Promise<Buffer> {
  const archive = pack()
  const chunks: Buffer[] = []
  const read = (async () => {
    for await (const chunk of archive as AsyncIterable<Buffer>) chunks.push(chunk)
  })()
  for (const { name, type = 'file', mode = type === 'file' ? 0o600 : 0o700, uid = 0, gid = 0, body = '' } of entries) {
    const header = { name, type, mode, uid, gid, mtime: new Date(0) }
    if (type === 'file') archive.entry(header, body)
    else archive.entry(header)
  }
  archive.finalize()
  await read
  return Buffer.concat(chunks)
}

/** The archive breaks a rule, or a limit. */
export class TarRefused extends Error {
  constructor(problem: string) {
    super(`archive refused: ${problem}`)
    this.name = 'TarRefused'
  }
}

export interface TarLimits {
  /** Of the whole archive. */
  maxBytes: number
  maxEntries: number
}

export interface ReadTarEntry {
  /** Relative, without `.` and `..`, without a slash at its end. */
  name: string
  /** Everything that is neither file nor directory is only told. */
  type: 'file' | 'directory' | 'other'
  mode: number
  uid: number
  gid: number
  size: number
  /** Where a link leads, as it is written there. */
  link?: string
  /** Of a file: to be read to its end, or not at all. */
  body: AsyncIterable<Buffer>
}

/** Rejects with TarRefused, or with what the stream fails with. Leaving the loop destroys the stream. */
export async function* readTar(
  stream: AsyncIterable<Buffer>,
  { maxBytes, maxEntries }: TarLimits,
): AsyncGenerator<ReadTarEntry> {
  const archive = extract()
  const source = Readable.from(limited(stream, maxBytes), { objectMode: false })
  source.on('error', (error) => archive.destroy(error))
  // Of the kind that tar-stream is made of, and near enough to Node's.
  source.pipe(archive as unknown as NodeJS.WritableStream)
  let count = 0
  try {
    for await (const entry of archive) {
      const { header } = entry
      if (++count > maxEntries) throw new TarRefused(`it has more than ${maxEntries} entries`)
      const name = checkedName(header.name)
      if (name !== undefined)
        yield {
          name,
          type: header.type === 'file' || header.type === 'directory' ? header.type : 'other',
          mode: (header.mode ?? 0) & 0o777,
          uid: header.uid ?? 0,
          gid: header.gid ?? 0,
          size: header.size ?? 0,
          ...(header.linkname ? { link: header.linkname } : {}),
          body: entry as unknown as AsyncIterable<Buffer>,
        }
      entry.resume()
    }
  } finally {
    source.destroy()
    archive.destroy()
  }
}

async function* limited(stream: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<Buffer> {
  let bytes = 0
  for await (const chunk of stream) {
    bytes += chunk.length
    if (bytes > maxBytes) throw new TarRefused(`it is larger than ${maxBytes} bytes`)
    yield chunk
  }
}

/** undefined: the archive's own root. */
function checkedName(text: string): string | undefined {
  const parts = text.split('/').filter((part) => part !== '' && part !== '.')
  if (text.startsWith('/') || parts.includes('..') || text.includes('\0'))
    throw new TarRefused(`the name ${JSON.stringify(text.slice(0, 200))} leads out of it`)
  return parts.length === 0 ? undefined : parts.join('/')
}
