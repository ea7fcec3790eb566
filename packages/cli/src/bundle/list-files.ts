import { lstat, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { BundleFile } from '@openoz/protocol'
import { filesBelow, hashBundleFile } from '@openoz/worker'
import { findInterpreter } from './elf.ts'

/** Every file and link below a folder, as a manifest lists them. */
export async function listFiles(folder: string): Promise<BundleFile[]> {
  const files: BundleFile[] = []
  for (const path of await filesBelow(folder)) {
    const full = join(folder, path)
    const found = await lstat(full)
    if (found.isSymbolicLink()) {
      files.push({ path, link: await readlink(full) })
      continue
    }
    const interpreter = await relocatable(full)
    const mode = found.mode & 0o111 ? 0o755 : 0o644
    const file = { path, mode, size: found.size, sha256: '', ...(interpreter && { interpreter }) } as const
    files.push({ ...file, sha256: await hashBundleFile(folder, file) })
  }
  return files
}

/** Where a path of another bundle fits in; not of a program that was left as it is, and starts with its own system's loader. */
async function relocatable(file: string): Promise<{ offset: number; size: number } | undefined> {
  const found = await findInterpreter(file)
  return found?.path === '/agent/lib/ld.so' ? { offset: found.offset, size: found.size } : undefined
}
