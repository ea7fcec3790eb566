import { createHash, randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { AgentManifest } from '@openoz/protocol'
import { pino } from 'pino'
import { expect, inject, test } from 'vitest'
import { sharedNames } from '../../packages/worker/src/backends/docker-labels.ts'
import { bundleHash } from '../../packages/worker/src/bundle/bundle-file.ts'
import { ensureBundleVolume } from '../../packages/worker/src/bundle/bundle-volume.ts'
import { createSharedVolumes } from '../../packages/worker/src/bundle/shared-volume.ts'
import { inspectContainer } from '../../packages/worker/src/engine/containers.ts'
import type { Engine } from '../../packages/worker/src/engine/engine.ts'
import { createHelper } from '../../packages/worker/src/engine/helper-container.ts'
import { createVolume, inspectVolume, removeVolume } from '../../packages/worker/src/engine/volumes.ts'
import { until } from '../support/poll.ts'
import { openTestEngine } from '../support/test-images.ts'

/** A bundle as far as a volume is concerned: some files, and a manifest that lists them. */
function smallBundle() {
  const folder = mkdtempSync('/tmp/oz-sb-')
  const body = Buffer.alloc(300_000, randomUUID())
  mkdirSync(join(folder, 'bin/deep'), { recursive: true })
  writeFileSync(join(folder, 'bin/deep/program'), body, { mode: 0o755 })
  const sha256 = createHash('sha256').update(body).digest('hex')
  const files: AgentManifest['files'] = [
    { path: 'bin/deep/program', mode: 0o755, size: body.length, sha256 },
    { path: 'bin/link', link: 'deep/program' },
  ]
  const manifest: AgentManifest = {
    ...{ version: 1, hash: bundleHash(files), platform: 'linux/amd64', is_patched: true, files, licences: [] },
    ...{ oz: '1', node: '1', ripgrep: '1', libc: '1' },
  }
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify(manifest))
  const names = sharedNames('agent', manifest.hash)
  return { folder, manifest, names, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) }
}

function worker(engine: Engine, installationId = randomUUID()) {
  const parts = { engine, installationId, instance: randomUUID(), isAlive: () => true, log: pino({ level: 'silent' }) }
  const shared = createSharedVolumes(parts)
  const owner = { installationId, version: '1' }
  return {
    ...{ installationId, instance: parts.instance, shared },
    ensure: (bundle: ReturnType<typeof smallBundle>) => ensureBundleVolume(shared, bundle, { engine, owner }),
  }
}

const open = () => openTestEngine(inject('dockerEngine') ?? { socket: '' })

test('workers that need a volume at the same moment fill it once, and later ones find it', async () => {
  await using engine = open()
  using bundle = smallBundle()
  const workers = [worker(engine), worker(engine), worker(engine)]
  const filled = await Promise.all(workers.map(({ ensure }) => ensure(bundle)))
  expect(filled.filter(({ wasFilled }) => wasFilled)).toHaveLength(1)
  expect(await worker(engine).ensure(bundle)).toEqual({ volume: bundle.names.volume, wasFilled: false })
  expect(await inspectContainer(engine, bundle.names.filler)).toBeUndefined()
  await removeVolume(engine, bundle.names.volume)
})

test('whoever wanted it goes at once, and leaves nothing half done', async () => {
  await using engine = open()
  using bundle = smallBundle()
  const { shared, installationId } = worker(engine)
  const stopping = new AbortController()
  const wanted = ensureBundleVolume(shared, bundle, {
    ...{ engine, owner: { installationId, version: '1' } },
    signal: stopping.signal,
  })
  const failed = expect(wanted).rejects.toThrow('not any more')
  await until(() => inspectContainer(engine, bundle.names.filler), Boolean, { everyMs: 2 })
  stopping.abort(new Error('not any more'))
  await failed
  await shared.settle(10_000)
  expect(await inspectContainer(engine, bundle.names.filler)).toBeUndefined()
  expect(await worker(engine).ensure(bundle)).toMatchObject({ wasFilled: false })
  await removeVolume(engine, bundle.names.volume)
})

test('a volume that somebody removed is filled again, and never taken for the one that was', async () => {
  await using engine = open()
  using bundle = smallBundle()
  const one = worker(engine)
  expect(await one.ensure(bundle)).toMatchObject({ wasFilled: true })
  expect(await one.shared.isSame(bundle.names.volume)).toBe(true)
  await removeVolume(engine, bundle.names.volume)
  expect(await one.shared.isSame(bundle.names.volume)).toBe(false)
  expect(await one.ensure(bundle)).toMatchObject({ wasFilled: true })
  await removeVolume(engine, bundle.names.volume)
})

test('a volume that an engine has made by itself in its place is replaced, and one of somebody else is not', async () => {
  await using engine = open()
  using bundle = smallBundle()
  const name = bundle.names.volume
  await createVolume(engine, { name, labels: {} })
  expect(await worker(engine).ensure(bundle)).toMatchObject({ wasFilled: true })
  await removeVolume(engine, name)
  await createVolume(engine, { name, labels: { whose: 'somebody else’s' } })
  await expect(worker(engine).ensure(bundle)).rejects.toMatchObject({ status: 409 })
  await removeVolume(engine, name)
})

test('what a process that died was filling is filled by the next', async () => {
  await using engine = open()
  using bundle = smallBundle()
  const installationId = randomUUID()
  const labels = { 'oz-worker-state': installationId, 'oz-worker-instance': randomUUID() }
  await createHelper(engine, { name: bundle.names.filler, labels, mounts: [] })
  const parts = { engine, installationId, instance: randomUUID(), isAlive: () => false, log: pino({ level: 'silent' }) }
  const shared = createSharedVolumes(parts)
  const done = await ensureBundleVolume(shared, bundle, { engine, owner: { installationId, version: '1' } })
  expect(done).toMatchObject({ wasFilled: true })
  await removeVolume(engine, bundle.names.volume)
})

test('what arrives as something else than the manifest says is never used', async () => {
  await using engine = open()
  using bundle = smallBundle()
  const body = Buffer.alloc(300_000, 'x')
  writeFileSync(join(bundle.folder, 'bin/deep/program'), body)
  const one = worker(engine)
  await expect(one.ensure(bundle)).rejects.toMatchObject({ code: 'agent_bundle_broken' })
  expect(await one.shared.isSame(bundle.names.volume)).toBe(false)
  // Nor the next time.
  await expect(one.ensure(bundle)).rejects.toMatchObject({ code: 'agent_bundle_broken' })
  expect(await inspectContainer(engine, bundle.names.filler)).toBeUndefined()
  await removeVolume(engine, bundle.names.volume)
})

test('a file that cannot be read here ends the filling with that', async () => {
  await using engine = open()
  using bundle = smallBundle()
  rmSync(join(bundle.folder, 'bin/deep/program'))
  await expect(worker(engine).ensure(bundle)).rejects.toMatchObject({ code: 'ENOENT' })
  expect(await inspectVolume(engine, bundle.names.volume)).toBeDefined()
  await removeVolume(engine, bundle.names.volume)
})
