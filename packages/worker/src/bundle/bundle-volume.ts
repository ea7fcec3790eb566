import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { Readable } from 'node:stream'
import type { BundleFile } from '@openoz/protocol'
import { type Pack, pack } from 'tar-stream'
import { bundleLabel, sharedLabels, sharedNames } from '../backends/docker-labels.ts'
import { getArchive, putArchive } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import { readTar } from '../engine/tar-text.ts'
import { readBundleFile } from './bundle-file.ts'
import { type AgentBundle, brokenBundle } from './read-manifest.ts'
import type { SharedVolumes } from './shared-volume.ts'

/**
 * The agent bundle as a volume of the engine, named by its hash: written once per engine through its API, read back and compared with the manifest, and
 * from then on mounted into every task's container. About 140 MB and 2 s the first time, 2 ms later.
 */
export async function ensureBundleVolume(
  shared: SharedVolumes,
  bundle: AgentBundle,
  {
    engine,
    owner,
    signal,
  }: { engine: Engine; owner: { installationId: string; version: string }; signal?: AbortSignal },
): Promise<{ volume: string; wasFilled: boolean }> {
  const { hash } = bundle.manifest
  const names = sharedNames('agent', hash)
  const { wasFilled } = await shared.ensure(
    {
      ...names,
      labels: { ...sharedLabels(owner), [bundleLabel]: hash },
      mark: `${hash}\n`,
      fill: async ({ id, place }) => {
        await putBundle(engine, bundle, { id, place })
        await compare(engine, bundle, { id, place })
      },
    },
    signal,
  )
  return { volume: names.volume, wasFilled }
}

interface Place {
  id: string
  place: string
}

async function putBundle(engine: Engine, bundle: AgentBundle, { id, place }: Place): Promise<void> {
  const archive = pack()
  const { promise: closed, resolve: onClose } = Promise.withResolvers<void>()
  archive.once('close', () => onClose())
  const writing = write(archive, bundle, { base: place.slice(1), closed }).catch((error: unknown) => {
    // What cannot be read here ends the request, and is what is told.
    archive.destroy(error instanceof Error ? error : new Error(String(error)))
    throw error
  })
  const sending = putArchive(engine, id, { path: '/', archive: Readable.from(archive, { objectMode: false }) })
  sending.catch((error: unknown) => archive.destroy(error instanceof Error ? error : new Error(String(error))))
  const [written, sent] = await Promise.allSettled([writing, sending])
  if (written.status === 'rejected') throw written.reason
  if (sent.status === 'rejected') throw sent.reason
}

/** Returns early when the archive is closed: nobody reads it any more. */
async function write(
  archive: Pack,
  { folder, manifest }: AgentBundle,
  { base, closed }: { base: string; closed: Promise<void> },
): Promise<void> {
  const common = { uid: 0, gid: 0, mtime: new Date(0) }
  for (const name of ['', ...foldersOf(manifest.files)])
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

/** Reads back what arrived. Rejects with `agent_bundle_broken`. */
async function compare(engine: Engine, { folder, manifest }: AgentBundle, { id, place }: Place): Promise<void> {
  const stream = await getArchive(engine, id, { path: place })
  const broken = (problem: string) => brokenBundle(folder, `on the engine ${problem}`)
  if (!stream) throw broken('there is nothing of it')
  const wanted = new Map(manifest.files.map((file) => [file.path, file]))
  const size = manifest.files.reduce((sum, file) => sum + ('size' in file ? file.size : 0), 0)
  const limits = { maxBytes: size + 64 * 1024 * 1024, maxEntries: 2 * manifest.files.length + 1_000 }
  for await (const { name, type, mode, link, body } of readTar(stream, limits)) {
    const path = name.split('/').slice(1).join('/')
    const file = wanted.get(path)
    // What a filler of before has left is no harm: nothing names it.
    if (type === 'directory' || !file) continue
    wanted.delete(path)
    if ('link' in file) {
      if (link !== file.link) throw broken(`${path} is not the link to ${file.link}`)
      continue
    }
    const hash = createHash('sha256')
    for await (const chunk of body) hash.update(chunk)
    if (hash.digest('hex') !== file.sha256) throw broken(`${path} holds something else`)
    if ((mode & 0o111) !== (file.mode & 0o111)) throw broken(`${path} has another mode`)
  }
  const [missing] = wanted.keys()
  if (missing !== undefined) throw broken(`${missing} is missing`)
}
