import { constants } from 'node:fs'
import {
  chmod,
  copyFile,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type AgentManifest, AppError } from '@openoz/protocol'
import { shellWord, verifyBundle } from '@openoz/worker'
import { relocateBundle } from '../bundle/relocate.ts'
import { type Installation, type InstallPlaces, makeFolder } from './installation.ts'

/**
 * The bundle that a machine's programs run from: `<bundles>/<hash>`, to which the link `current` leads, and the two names on the PATH. An update puts
 * its bundle beside the old one and moves the link; what runs goes on in the old one, which the update after that removes.
 */

const names = ['oz', 'oz-agent-worker'] as const

/** First line of the names on the PATH, by which they are known to be ours. */
const mark = '# Installed by install.sh of an openoz control plane.'

/** Puts a verified bundle beside those that are there; nothing leads to it yet. Rejects when `signal` is aborted meanwhile. */
export async function placeBundle(
  { from, manifest, signal }: { from: string; manifest: AgentManifest; signal: AbortSignal },
  { places, installation }: { places: InstallPlaces; installation: Installation },
): Promise<string> {
  const folder = bundleFolderOf(places, manifest.hash)
  await makeFolder(places.bundles, installation)
  if (await isWhole(folder)) return folder
  await rm(folder, { recursive: true, force: true })
  const paths = ['manifest.json', ...manifest.files.map(({ path }) => path)]
  const folders = new Set(paths.map((path) => dirname(join(folder, path))))
  for (const name of [...folders].sort()) await mkdir(name, { recursive: true })
  for (const file of manifest.files) {
    signal.throwIfAborted()
    await take(join(from, file.path), join(folder, file.path), file)
  }
  await take(join(from, 'manifest.json'), join(folder, 'manifest.json'), { mode: 0o644 })
  // One that its programs' loader has to be named for is started by `bin/oz` so.
  if (manifest.is_patched) await relocateBundle(folder)
  return folder
}

export function bundleFolderOf({ bundles }: InstallPlaces, hash: string): string {
  return join(bundles, hash)
}

/** By another name where the file system can, which takes neither time nor room. */
async function take(from: string, to: string, file: { mode: number } | { link: string }): Promise<void> {
  if ('link' in file) return symlink(file.link, to)
  await link(from, to).catch(() => copyFile(from, to, constants.COPYFILE_FICLONE))
  await chmod(to, file.mode)
}

async function isWhole(folder: string): Promise<boolean> {
  return verifyBundle(folder).then(
    () => true,
    () => false,
  )
}

/** Refuses to replace programs of these names that are not ours; before anything is changed. */
export async function assertNamesAreFree({ bin }: InstallPlaces): Promise<void> {
  for (const name of names) {
    const file = join(bin, name)
    const found = await lstat(file).catch(() => undefined)
    if (!found || (found.isFile() && (await readFile(file, 'utf8')).includes(mark))) continue
    throw new AppError('program_in_the_way', { path: file })
  }
}

/** From now on the programs are those of this bundle. */
export async function leadTo(
  hash: string,
  { places, installation }: { places: InstallPlaces; installation: Installation },
): Promise<void> {
  const current = join(places.bundles, 'current')
  const next = `${current}.new`
  await rm(next, { force: true })
  await symlink(hash, next)
  await rename(next, current)
  await makeFolder(places.bin, installation)
  for (const name of names) {
    const file = join(places.bin, name)
    const text = `#!/bin/sh\n${mark}\nexec /bin/sh ${shellWord(join(current, 'bin', name))} "$@"\n`
    await writeFile(`${file}.new`, text, { mode: 0o755 })
    await rename(`${file}.new`, file)
  }
}

/** Those of before the one that was current until now: agents of that may still be at work. */
export async function removeOldBundles({ bundles }: InstallPlaces, keep: (string | undefined)[]): Promise<void> {
  for (const name of await readdir(bundles)) {
    if (/^[0-9a-f]{64}$/.test(name) && !keep.includes(name))
      await rm(join(bundles, name), { recursive: true, force: true })
  }
}

/** The names and all bundles, and what an installation that was killed has begun of them. False when there was nothing. */
export async function removePrograms({ bundles, bin }: InstallPlaces): Promise<boolean> {
  const ours: string[] = []
  for (const name of names.flatMap((program) => [program, `${program}.new`])) {
    const file = join(bin, name)
    const text = await readFile(file, 'utf8').catch(() => '')
    if (text.includes(mark)) ours.push(file)
  }
  for (const name of await readdir(bundles).catch((): string[] => [])) {
    if (/^(current(\.new)?|[0-9a-f]{64})$/.test(name)) ours.push(join(bundles, name))
  }
  for (const path of ours) await rm(path, { recursive: true, force: true })
  return ours.length > 0
}

/** The words that start the worker of the bundle that is current then. */
export function workerCommand({ bundles }: InstallPlaces): string[] {
  return ['/bin/sh', join(bundles, 'current', 'bin', 'oz-agent-worker')]
}
