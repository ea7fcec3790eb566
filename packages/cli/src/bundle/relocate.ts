import { constants } from 'node:fs'
import { chmod, copyFile, open, rename, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { AppError } from '@openoz/protocol'
import { brokenBundle, interpreterBytes, readBundle } from '@openoz/worker'

/**
 * Makes the programs of a bundle that does not lie at `/agent` start from where it lies: each names its loader by an absolute path. It can be done
 * again after a move, and says nothing against the bundle's hash (`verifyBundle`). The scripts in `bin/` are for `/agent` and stay so: elsewhere
 * `bin/node app/oz.mjs` is what to run. Rejects with `agent_bundle_missing` or `agent_bundle_broken`.
 */
export async function relocateBundle(folder: string): Promise<void> {
  const place = resolve(folder)
  const bundle = await readBundle(place)
  if (!bundle) throw new AppError('agent_bundle_missing', { platform: 'this machine', places: place })
  if (!bundle.manifest.is_patched) {
    throw brokenBundle(place, 'it was made without patchelf, and its programs cannot be told where their loader is')
  }
  const loader = join(place, 'lib', 'ld.so')
  for (const file of bundle.manifest.files) {
    if ('link' in file || !file.interpreter) continue
    const { offset, size } = file.interpreter
    if (Buffer.byteLength(loader) >= size) throw brokenBundle(place, `its path is longer than ${size - 12} bytes`)
    await replace(join(place, file.path), { offset, bytes: interpreterBytes(loader, size), mode: file.mode })
  }
}

/** By a new file: the old one may be running, and may have other names elsewhere. */
async function replace(
  file: string,
  { offset, bytes, mode }: { offset: number; bytes: Buffer; mode: number },
): Promise<void> {
  const draft = `${file}.new`
  try {
    await copyFile(file, draft, constants.COPYFILE_FICLONE)
    await using handle = await open(draft, 'r+')
    await handle.write(bytes, 0, bytes.length, offset)
    await chmod(draft, mode)
    await rename(draft, file)
  } finally {
    await rm(draft, { force: true })
  }
}
