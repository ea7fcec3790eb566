import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { pack } from 'tar-stream'
import { bundleLabel, sharedLabels, sharedNames } from '../backends/docker-labels.ts'
import { getArchive, putArchive } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import { readTar } from '../engine/tar-text.ts'
import { writeBundle } from './pack-bundle.ts'
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
  const writing = writeBundle(archive, bundle, { base: place.slice(1) }).catch((error: unknown) => {
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
