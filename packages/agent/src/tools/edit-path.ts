import { realpath } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import type { Workspace } from '../workspace/prepare.ts'

/**
 * The real place of a path that the model named, which must lie in the workspace also after symbolic links. For a file that does not exist yet
 * the nearest folder that does decides.
 */
export async function resolveInside(name: string, { folder, toolsFolder }: Workspace): Promise<string> {
  const root = await realpath(folder)
  const wanted = resolve(toolsFolder, name)
  const real = await realOf(wanted)
  const inside = relative(root, real)
  if (inside === '' || inside === '..' || inside.startsWith(`..${sep}`) || resolve(root, inside) !== real) {
    throw new Error(`${name} is outside of the workspace ${folder}. Only files inside it can be edited.`)
  }
  return real
}

async function realOf(path: string): Promise<string> {
  const missing: string[] = []
  for (let at = path; ; at = dirname(at)) {
    try {
      return join(await realpath(at), ...missing)
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined
      if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error
      if (dirname(at) === at) throw error
      missing.unshift(basename(at))
    }
  }
}
