import { readFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type Pack, pack } from 'tar-stream'
import { readBundleFile } from './bundle-file.ts'
import type { AgentBundle } from './read-manifest.ts'

/** A bundle as a tar archive: the same bytes wherever it lies and was relocated to, and on whatever day. The manifest is its last file. */
export function packBundle(bundle: AgentBundle): Readable {
  const archive = pack()
  fill(archive, bundle).catch((error: Error) => archive.destroy(error))
  return Readable.from(archive as AsyncIterable<Buffer>, { objectMode: false })
}

const root = { uid: 0, gid: 0, mtime: new Date(0) }

async function fill(archive: Pack, { folder, manifest }: AgentBundle): Promise<void> {
  const folders = new Set(manifest.files.flatMap(({ path }) => parentsOf(path)))
  for (const name of [...folders].sort()) archive.entry({ ...root, name, type: 'directory', mode: 0o755 })
  for (const file of manifest.files) {
    if ('link' in file) {
      archive.entry({ ...root, name: file.path, type: 'symlink', linkname: file.link, mode: 0o777 })
      continue
    }
    const entry = archive.entry({ ...root, name: file.path, mode: file.mode, size: file.size })
    await pipeline(readBundleFile(folder, file), entry)
  }
  archive.entry({ ...root, name: 'manifest.json', mode: 0o644 }, await readFile(join(folder, 'manifest.json')))
  archive.finalize()
}

function parentsOf(path: string): string[] {
  const parent = posix.dirname(path)
  return parent === '.' ? [] : [...parentsOf(parent), parent]
}
