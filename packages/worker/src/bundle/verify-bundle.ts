import { lstat, readdir, readlink } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import { type AgentManifest, AppError, type BundleFile } from '@openoz/protocol'
import { bundleHash, hashBundleFile } from './bundle-file.ts'
import { brokenBundle, readBundle } from './read-manifest.ts'

/**
 * Reads every file of a bundle and compares it with the manifest: what it holds (however it was relocated), whether it may be executed, that none is
 * missing and none is there besides. Half a second. Rejects with `agent_bundle_missing` or `agent_bundle_broken`.
 */
export async function verifyBundle(folder: string): Promise<AgentManifest> {
  const bundle = await readBundle(folder)
  if (!bundle) throw new AppError('agent_bundle_missing', { platform: 'this machine', places: folder })
  const { manifest } = bundle
  if (bundleHash(manifest.files) !== manifest.hash)
    throw brokenBundle(folder, 'its list of files is not the one of its hash')
  for (const file of manifest.files) {
    const problem = await problemOf(folder, file)
    if (problem !== undefined) throw brokenBundle(folder, `${file.path} ${problem}`)
  }
  const known = new Set(['manifest.json', ...manifest.files.map(({ path }) => path)])
  const foreign = (await filesBelow(folder)).find((path) => !known.has(path))
  if (foreign !== undefined) throw brokenBundle(folder, `${foreign} does not belong to it`)
  return manifest
}

async function problemOf(folder: string, file: BundleFile): Promise<string | undefined> {
  const path = join(folder, file.path)
  const found = await lstat(path).catch(() => undefined)
  if (!found) return 'is missing'
  if ('link' in file) {
    const isSame = found.isSymbolicLink() && (await readlink(path)) === file.link
    return isSame ? undefined : `is not the link to ${file.link}`
  }
  if (!found.isFile()) return 'is no file'
  if (found.size !== file.size) return `has ${found.size} bytes, not ${file.size}`
  // Windows knows no such bit; there a bundle is only kept and passed on.
  if (process.platform !== 'win32' && (found.mode & 0o111) !== (file.mode & 0o111)) return 'has another mode'
  return (await hashBundleFile(folder, file)) === file.sha256 ? undefined : 'holds something else'
}

/** Paths of what is not a folder, as the manifest writes them. */
export async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .sort()
}
