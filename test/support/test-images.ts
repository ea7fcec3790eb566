import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { pino } from 'pino'
import { listContainers } from '../../packages/worker/src/engine/containers.ts'
import { type Engine, openEngine } from '../../packages/worker/src/engine/engine.ts'
import { importImage, inspectImage } from '../../packages/worker/src/engine/images.ts'
import { listNetworks } from '../../packages/worker/src/engine/networks.ts'
import { readTar, tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { listVolumes } from '../../packages/worker/src/engine/volumes.ts'
import { programPath, type TestEngine } from './docker-engine.ts'

/**
 * Images for tests, made of what Debian has: no registry is asked. Those of a distribution come from its mirror, by debootstrap, which takes half a
 * minute; they are kept as archives between runs, in TEST_IMAGES_DIR or below the user's cache.
 */

const run = promisify(execFile)

/** What each holds; `make` puts it into a folder. */
const recipes = {
  /** Debian 12, with glibc 2.36, bash and apt. */
  debian: { needs: ['debootstrap'], make: (folder: string) => debootstrap('bookworm', folder) },
  /** An older glibc, 2.31. */
  bullseye: { needs: ['debootstrap'], make: (folder: string) => debootstrap('bullseye', folder) },
  /** A newer glibc, 2.41. */
  trixie: { needs: ['debootstrap'], make: (folder: string) => debootstrap('trixie', folder) },
  /** musl and busybox, as in Alpine. */
  musl: { needs: ['busybox', '/lib/ld-musl-x86_64.so.1'], make: makeMusl },
  /** glibc, users, and no shell. */
  distroless: { needs: [], make: makeDistroless },
  /** One program that needs no library: busybox as `/bin/sleep`, `/bin/sh` and so on is not there, only `/box`. */
  static: { needs: ['busybox'], make: makeStatic },
  empty: { needs: [], make: async () => {} },
}
export type TestImage = keyof typeof recipes

export function imageName(image: TestImage): string {
  return `oz-test/${image}:1`
}

/** Why an image cannot be made here; undefined when it can. */
export function imageProblem(image: TestImage): string | undefined {
  const missing = recipes[image].needs.filter((name) => !existsSync(name) && programPath(name) === undefined)
  return missing.length === 0 || existsSync(archiveOf(image)) ? undefined : `there is no ${missing.join(', ')}`
}

/** Made before on this machine. */
export function isImageKept(image: TestImage): boolean {
  return existsSync(archiveOf(image))
}

/** Each under its `imageName`; those that the engine has are left alone. */
export async function prepareImages(engine: Pick<TestEngine, 'socket'>, images: TestImage[]): Promise<void> {
  await using api = openTestEngine(engine)
  for (const image of images) {
    if (await inspectImage(api, imageName(image))) continue
    const archive = createReadStream(await prepareArchive(image))
    await importImage(api, { repository: `oz-test/${image}`, tag: '1', archive })
  }
}

/** The archive of an image, made when it is not kept yet. Several processes may want the same. */
export async function prepareArchive(image: TestImage): Promise<string> {
  const archive = archiveOf(image)
  if (existsSync(archive)) return archive
  mkdirSync(cacheFolder(), { recursive: true, mode: 0o700 })
  const folder = mkdtempSync(join(tmpdir(), `oz-image-${image}-`))
  try {
    const root = join(folder, 'root')
    mkdirSync(root)
    chmodSync(root, 0o755)
    await recipes[image].make(root)
    // debootstrap leaves /proc mounted for a while.
    const left = ['./proc/*', './sys/*', './var/cache/apt/archives/*.deb', './var/lib/apt/lists/*'].map(
      (path) => `--exclude=${path}`,
    )
    const temporary = `${archive}.${process.pid}`
    await run('tar', ['-C', root, ...left, '--numeric-owner', '-cf', temporary, '.'])
    renameSync(temporary, archive)
    return archive
  } finally {
    await run('umount', [join(folder, 'root/proc')]).catch(() => {})
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  }
}

/** A copy of an image that says that it is for another CPU. Engines do not make such ones from archives. */
export async function loadForeignImage(engine: TestEngine, from: string, to: string): Promise<void> {
  await using api = openTestEngine(engine)
  const files = new Map<string, Buffer>()
  const saved = await api.stream('GET', `/images/${encodeURI(from)}/get`)
  for await (const { name, type, body } of readTar(saved, { maxBytes: 1e9, maxEntries: 1e4 }))
    if (type === 'file') files.set(name, await bytesOf(body))
  const [manifest] = JSON.parse(String(files.get('manifest.json'))) as [{ Config: string; RepoTags: string[] }]
  const config = JSON.parse(String(files.get(manifest.Config))) as object
  const changed = Buffer.from(JSON.stringify({ ...config, architecture: 'arm64' }))
  files.delete(manifest.Config)
  files.delete('repositories')
  const configName = `${createHash('sha256').update(changed).digest('hex')}.json`
  files.set(configName, changed)
  files.set('manifest.json', Buffer.from(JSON.stringify([{ ...manifest, Config: configName, RepoTags: [to] }])))
  const archive = await tarOf([...files].map(([name, body]) => ({ name, body, mode: 0o644 })))
  const answer = await api.stream('POST', '/images/load', { archive })
  const said = String(await bytesOf(answer))
  if (!said.includes('Loaded image')) throw new Error(said)
}

/** The product's own client of this engine. */
export function openTestEngine(engine: Pick<TestEngine, 'socket'>): Engine {
  const address = { kind: 'unix', socketPath: engine.socket, display: engine.socket, source: 'the test' } as const
  return openEngine(address, { env: {}, log: pino({ level: 'silent' }) })
}

/** What there is on an engine that somebody has to answer for: "container oz-task-…", "volume …", "network …". */
export async function objectsOf(engine: Pick<TestEngine, 'socket'>): Promise<string[]> {
  await using api = openTestEngine(engine)
  const [containers, volumes, networks] = await Promise.all([
    listContainers(api, { labels: [] }),
    listVolumes(api, { labels: [] }),
    listNetworks(api, { labels: [] }),
  ])
  const own = networks.filter(({ Name }) => !['bridge', 'host', 'none'].includes(Name))
  return [
    ...containers.map(({ Names }) => `container ${Names[0]?.slice(1)}`),
    ...volumes.map(({ Name }) => `volume ${Name}`),
    ...own.map(({ Name }) => `network ${Name}`),
  ].toSorted()
}

function cacheFolder(): string {
  return (
    process.env.TEST_IMAGES_DIR ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'openoz-test-images')
  )
}

function archiveOf(image: TestImage): string {
  return join(cacheFolder(), `${image}-1.tar`)
}

async function debootstrap(suite: string, folder: string): Promise<void> {
  await run('debootstrap', ['--variant=minbase', suite, folder], { maxBuffer: 1e8 })
}

async function makeMusl(folder: string): Promise<void> {
  for (const name of ['bin', 'etc', 'lib', 'tmp', 'root']) mkdirSync(join(folder, name))
  chmodSync(join(folder, 'tmp'), 0o1777)
  copyFileSync(programPath('busybox') as string, join(folder, 'bin/busybox'))
  copyFileSync('/lib/ld-musl-x86_64.so.1', join(folder, 'lib/ld-musl-x86_64.so.1'))
  writeUsers(folder)
  await run('chroot', [folder, '/bin/busybox', '--install', '-s', '/bin'])
}

async function makeDistroless(folder: string): Promise<void> {
  const libraries = ['ld-linux-x86-64.so.2', 'libc.so.6', 'libm.so.6', 'libpthread.so.0', 'libdl.so.2']
  for (const name of ['etc', 'lib/x86_64-linux-gnu', 'tmp', 'home']) mkdirSync(join(folder, name), { recursive: true })
  chmodSync(join(folder, 'tmp'), 0o1777)
  for (const name of libraries)
    copyFileSync(join('/lib/x86_64-linux-gnu', name), join(folder, 'lib/x86_64-linux-gnu', name))
  symlinkSync('lib', join(folder, 'lib64'))
  symlinkSync('x86_64-linux-gnu/ld-linux-x86-64.so.2', join(folder, 'lib/ld-linux-x86-64.so.2'))
  writeUsers(folder)
}

async function makeStatic(folder: string): Promise<void> {
  copyFileSync(programPath('busybox') as string, join(folder, 'box'))
}

function writeUsers(folder: string): void {
  writeFileSync(join(folder, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nada:x:1234:1234:Ada:/tmp:/bin/sh\n')
  writeFileSync(join(folder, 'etc/group'), 'root:x:0:\nada:x:1234:\nteam:x:77:ada\n')
}

async function bytesOf(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}
