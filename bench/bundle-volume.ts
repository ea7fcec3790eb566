import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { resolve } from 'node:path'
import pino from 'pino'
import { ensureBundleVolume } from '../packages/worker/src/bundle/bundle-volume.ts'
import { readBundle } from '../packages/worker/src/bundle/read-manifest.ts'
import { createSharedVolumes } from '../packages/worker/src/bundle/shared-volume.ts'
import { putArchive, removeContainer } from '../packages/worker/src/engine/containers.ts'
import type { Engine } from '../packages/worker/src/engine/engine.ts'
import { createHelper, volumeMount } from '../packages/worker/src/engine/helper-container.ts'
import { createVolume } from '../packages/worker/src/engine/volumes.ts'
import { startBenchEngine } from './docker-scene.ts'
import { alone, type Benchmark, compared, NotMeasurable } from './measurement.ts'

/**
 * The agent bundle on an engine that has never seen it: written, read back and compared. Then again, by the same worker process and by another one.
 * Control: `tar` of the same folder, and the engine unpacks it; nobody compares anything.
 */
export const bundleVolumeBenchmark: Benchmark = {
  name: 'bundle-volume',
  async run() {
    const bundle = await readBundle(resolve(import.meta.dirname, '../dist/agent'))
    if (!bundle) throw new NotMeasurable('npm run build made no dist/agent here')
    await using scene = await startBenchEngine()
    const { api: engine } = scene
    // Both find the helper's image there.
    await removeContainer(engine, await createHelper(engine, { name: 'bench-first', labels: {}, mounts: [] }))
    const owner = { installationId: randomUUID(), version: 'bench' }
    const openVolumes = () =>
      createSharedVolumes({
        ...{ engine, installationId: owner.installationId, instance: randomUUID() },
        ...{ isAlive: () => true, log: pino({ level: 'silent' }) },
      })
    const ensure = async (volumes: ReturnType<typeof openVolumes>) => {
      const from = performance.now()
      const { wasFilled } = await ensureBundleVolume(volumes, bundle, { engine, owner })
      return { ms: performance.now() - from, wasFilled }
    }
    const control = { name: 'tar of the same, and the engine’s unpacking', value: await bareMs(engine, bundle.folder) }
    const own = openVolumes()
    const [first, again, ofAnother] = [await ensure(own), await ensure(own), await ensure(openVolumes())]
    if (!first.wasFilled || again.wasFilled || ofAnother.wasFilled) throw new Error('it was not filled exactly once')
    return [
      compared('agent bundle, first time on an engine', 'ms', { value: first.ms, control }, atMost(5_000)),
      alone('agent bundle, before each later task', 'ms', again.ms, atMost(20)),
      alone('agent bundle, first task of a later worker process', 'ms', ofAnother.ms, atMost(500)),
    ]
  },
}

const atMost = (limit: number) => ({ words: `≤ ${limit} ms`, isMet: (ms: number) => ms <= limit })

async function bareMs(engine: Engine, folder: string): Promise<number> {
  const from = performance.now()
  const { Name } = await createVolume(engine, { name: 'bench-bare', labels: {} })
  const helper = await createHelper(engine, { name: Name, labels: {}, mounts: [volumeMount(Name, '/agent')] })
  const tar = spawn('tar', ['-C', folder, '-cf', '-', '.'], { stdio: ['ignore', 'pipe', 'inherit'] })
  await putArchive(engine, helper, { path: '/agent', archive: tar.stdout })
  const ms = performance.now() - from
  await removeContainer(engine, helper)
  return ms
}
