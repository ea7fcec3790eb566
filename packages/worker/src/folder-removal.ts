import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Removes a tree whatever modes its folders have: module caches are read-only, and tasks do what they like. Rejects with Node's error. */
export async function removeTree(folder: string): Promise<void> {
  const remove = () => rm(folder, { recursive: true, force: true, maxRetries: 3 })
  try {
    await remove()
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'EACCES' && code !== 'EPERM') throw error
    // -R does not follow links.
    await run('chmod', ['-R', 'u+rwX', folder]).catch(() => {})
    await remove()
  }
}
