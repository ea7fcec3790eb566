import { randomUUID } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import type { AgentPlatform } from '@openoz/protocol'

/**
 * What machines without anything are sent: an agent bundle as one compressed file. It takes seconds to make, so it is made when the first machine
 * asks and kept in the data folder until the bundle is another one.
 */
export interface AgentArchives {
  /** Rejects with `agent_bundle_missing` or `agent_bundle_broken`. Nothing is read before `open`. */
  find(platform: AgentPlatform): Promise<AgentArchive>
}

interface AgentArchive {
  /** The bundle's hash. */
  hash: string
  sizeBytes: number
  open(): Readable
}

/** Where bundles are is known to the program around the server. */
export interface AgentBundles {
  find(platform: AgentPlatform): Promise<{ hash: string; pack(): Readable }>
}

/** Writing one takes seconds. */
const abandonedAfterMs = 60 * 60 * 1000

export function createAgentArchives({ bundles, folder }: { bundles: AgentBundles; folder: string }): AgentArchives {
  const making = new Map<string, Promise<void>>()
  return {
    async find(platform) {
      const { hash, pack } = await bundles.find(platform)
      const prefix = `agent-${platform.replace('/', '-')}-`
      const name = `${prefix}${hash}.tar.gz`
      const file = join(folder, name)
      if (!(await sizeOf(file))) {
        let made = making.get(name)
        if (!made) {
          made = make(pack, file, { prefix }).finally(() => making.delete(name))
          making.set(name, made)
        }
        await made
      }
      const { size } = await stat(file)
      return { hash, sizeBytes: size, open: () => createReadStream(file) }
    },
  }
}

async function sizeOf(file: string): Promise<number | undefined> {
  return stat(file).then(
    ({ size }) => size,
    () => undefined,
  )
}

/** In one step, so that nobody is sent half of one. Those of earlier bundles go: who reads one has it open. */
async function make(pack: () => Readable, file: string, { prefix }: { prefix: string }): Promise<void> {
  const folder = join(file, '..')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const draft = `${file}.${randomUUID()}.tmp`
  try {
    // The least compression: over a network that a machine is set up by, more would take longer than it saves.
    await pipeline(pack(), createGzip({ level: 1 }), createWriteStream(draft, { mode: 0o600 }))
    const old = await oldNames(folder, prefix)
    await rename(draft, file)
    for (const name of old) if (join(folder, name) !== file) await rm(join(folder, name), { force: true })
  } finally {
    await rm(draft, { force: true })
  }
}

/** Archives, and drafts of servers that ended while they made one. */
async function oldNames(folder: string, prefix: string): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => name.startsWith(prefix))
  const isOld = names.map(async (name) => {
    if (!name.endsWith('.tmp')) return true
    const { mtimeMs } = await stat(join(folder, name)).catch(() => ({ mtimeMs: Date.now() }))
    return Date.now() - mtimeMs > abandonedAfterMs
  })
  const olds = await Promise.all(isOld)
  return names.filter((_, index) => olds[index])
}
