import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { chmod, copyFile, cp, link, mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { AgentManifest } from '@openoz/protocol'
import { bundleHash } from '@openoz/worker'
import { findParts } from './bundle-parts.ts'
import { listFiles } from './list-files.ts'
import { makeBase } from './make-base.ts'

interface MakeBundle {
  /** The code of `oz`: `oz.mjs` and what it loads. */
  app: string
  /** Its version. */
  version: string
  /** Becomes the bundle, in one step; what is there is removed. */
  into: string
  /** Where what it is made of is kept for the next time. */
  cache: string
  /** Of the machine: where tools and programs are found. */
  path: string
  /** The module from which packages are found, as a URL. */
  from: string
  node?: string
}

/**
 * Makes an agent bundle (see `AgentManifest`) from the code of `oz`, and from Node, its libraries, ripgrep, git and a shell as this machine has them.
 * Rejects with `agent_bundle_not_built` where that cannot be. `notes` says what the machine lacked.
 */
export async function makeBundle(wish: MakeBundle): Promise<{ manifest: AgentManifest; notes: string[] }> {
  const { app, version, into, cache, ...place } = wish
  const parts = await findParts(place)
  const base = await makeBase(parts, cache)
  const draft = `${into}.${randomUUID()}`
  try {
    await cp(app, join(draft, 'app'), { recursive: true, verbatimSymlinks: true })
    const code = (await listFiles(join(draft, 'app'))).map((file) => ({ ...file, path: `app/${file.path}` }))
    await linkAll(base, draft)
    await openToAll(draft, code)
    const files = [...base.files, ...code].sort((a, b) => (a.path < b.path ? -1 : 1))
    const { platform, versions, notes, patchelf } = parts
    const licences = [
      { component: 'oz', version, file: 'app/LICENSE' },
      { component: 'libraries of oz', file: 'app/THIRD-PARTY-NOTICES.txt' },
      ...base.licences,
    ]
    const about = { platform, is_patched: patchelf !== undefined, oz: version, ...versions }
    const manifest: AgentManifest = { version: 1, hash: bundleHash(files), ...about, files, licences }
    await writeFile(join(draft, 'manifest.json'), `${JSON.stringify(manifest, null, 1)}\n`)
    await rm(into, { recursive: true, force: true })
    await rename(draft, into)
    return { manifest, notes: [...notes, ...missingTerms(base.licences)] }
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
}

/** Only where dpkg knows whose they are. */
function missingTerms(licences: AgentManifest['licences']): string[] {
  if (licences.some(({ component }) => component !== 'node')) return []
  return [
    'the terms of what was taken from this system are not in the bundle: whoever passes the bundle on has to add them',
  ]
}

/** The same files by other names, as far as the file system can: they take neither time nor room. */
async function linkAll(
  { folder, files }: { folder: string; files: AgentManifest['files'] },
  into: string,
): Promise<void> {
  const folders = new Set(files.map(({ path }) => dirname(join(into, path))))
  for (const name of folders) await mkdir(name, { recursive: true })
  for (const file of files) {
    const to = join(into, file.path)
    if ('link' in file) await symlink(file.link, to)
    else
      await link(join(folder, file.path), to).catch(() =>
        copyFile(join(folder, file.path), to, constants.COPYFILE_FICLONE),
      )
  }
}

/** Whatever the builder's umask is: a container's user is another one. */
async function openToAll(folder: string, code: AgentManifest['files']): Promise<void> {
  for (const file of code) if ('mode' in file) await chmod(join(folder, file.path), file.mode)
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const folders = entries.filter((entry) => entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name))
  for (const name of [folder, ...folders]) await chmod(name, 0o755)
}
