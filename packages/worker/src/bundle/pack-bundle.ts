import { readFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { Readable } from 'node:stream'
import type { BundleFile } from '@openoz/protocol'
import { type Pack, pack } from 'tar-stream'
import { readBundleFile } from './bundle-file.ts'
import type { AgentBundle } from './read-manifest.ts'

/** A bundle as a tar archive: the same bytes wherever it lies and was relocated to, and on whatever day. The manifest is its last file. */
export function packBundle(bundle: AgentBundle): Readable {
  const archive = pack()
  writeBundle(archive, bundle).catch((error: Error) => archive.destroy(error))
  return Readable.from(archive as AsyncIterable<Buffer>, { objectMode: false })
}

/**
 * Writes all of it and ends the archive; with `base` below a folder of that name, which is made. Resolves early when the archive is closed, since nobody
 * reads it any more. Rejects with Node's error for what cannot be read, and leaves the archive open then.
 */
export async function writeBundle(
  archive: Pack,
  { folder, manifest }: AgentBundle,
  { base = '' }: { base?: string } = {},
): Promise<void> {
  const { promise: closed, resolve: onClose } = Promise.withResolvers<void>()
  archive.once('close', () => onClose())
  const common = { uid: 0, gid: 0, mtime: new Date(0) }
  const folders = [...(base === '' ? [] : ['']), ...foldersOf(manifest.files)]
  for (const name of folders)
    archive.entry({ ...common, name: `${posix.join(base, name).replace(/\/$/, '')}/`, type: 'directory', mode: 0o755 })
  for (const file of manifest.files) {
    if (archive.destroyed) return
    const name = posix.join(base, file.path)
    if ('link' in file) archive.entry({ ...common, name, type: 'symlink', linkname: file.link, mode: 0o777 })
    else {
      const { promise: isDone, resolve } = Promise.withResolvers<void>()
      const header = { ...common, name, type: 'file' as const, size: file.size, mode: file.mode }
      const sink = archive.entry(header, () => resolve())
      // The archive's own error is the one to tell.
      sink.on('error', () => resolve())
      for await (const bytes of readBundleFile(folder, file)) {
        if (archive.destroyed) return
        if (!sink.write(bytes))
          await Promise.race([closed, new Promise<void>((ready) => sink.once('drain', () => ready()))])
      }
      sink.end(null)
      await Promise.race([closed, isDone])
    }
  }
  if (archive.destroyed) return
  const text = await readFile(join(folder, 'manifest.json'))
  archive.entry({ ...common, name: posix.join(base, 'manifest.json'), mode: 0o644 }, text)
  archive.finalize()
}

/** Parents before what is in them. */
function foldersOf(files: readonly BundleFile[]): string[] {
  const folders = new Set<string>()
  for (const { path } of files)
    for (let folder = posix.dirname(path); folder !== '.'; folder = posix.dirname(folder)) folders.add(folder)
  return [...folders].sort()
}
