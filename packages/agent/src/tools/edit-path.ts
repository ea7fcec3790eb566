import { lstat, readlink, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import type { Workspace } from '../workspace/prepare.ts'
import { errorCode, fileFailure } from './file-failure.ts'

/**
 * The real place of a path that the model named, which must lie in the workspace also after symbolic links, and not in what git keeps for
 * itself: a hook or a setting written there runs with git's next command, unseen by any diff. For a file that does not exist yet the nearest folder
 * that does decides.
 *
 * `content` is the file that a link leads to, `entry` the link itself: what is moved or deleted is the name.
 */
export async function resolveInside(
  name: string,
  { folder, toolsFolder }: Workspace,
  what: 'content' | 'entry' = 'content',
): Promise<string> {
  const root = await realpath(folder)
  const wanted = resolve(toolsFolder, name)
  try {
    const entry = join(await realOf(dirname(wanted)), basename(wanted))
    const real = what === 'entry' ? entry : await realOf(wanted)
    const inside = relative(root, real)
    if (inside === '' || inside === '..' || inside.startsWith(`..${sep}`) || resolve(root, inside) !== real) {
      throw new Error(`${name} is outside of the workspace ${folder}. Only files inside it can be taken here.`)
    }
    const names = [inside, relative(folder, wanted), relative(root, entry)]
    if (
      names.some(isGitInternal) ||
      (await isInBareRepository(root, real)) ||
      (entry !== real && (await isInBareRepository(root, entry)))
    ) {
      throw new Error(`${name} belongs to git itself, and is not for tools to touch. Use git commands.`)
    }
    return real
  } catch (error) {
    throw fileFailure(error, name)
  }
}

/** In any case of letters: some file systems do not tell them apart. */
function isGitInternal(path: string): boolean {
  return path.split(sep).some((part) => part.toLowerCase() === '.git')
}

/** One without a `.git`, or the folder that a `.git` file leads to: known by what git itself knows it by. */
async function isInBareRepository(root: string, path: string): Promise<boolean> {
  for (let at = dirname(path); at === root || at.startsWith(`${root}${sep}`); at = dirname(at)) {
    const parts = await Promise.all(
      ['HEAD', 'objects', 'refs'].map((name) => stat(join(at, name)).catch(() => undefined)),
    )
    const [head, objects, refs] = parts
    if (head && !head.isDirectory() && objects?.isDirectory() && refs?.isDirectory()) return true
  }
  return false
}

async function realOf(path: string): Promise<string> {
  const missing: string[] = []
  for (let at = path; ; at = dirname(at)) {
    try {
      return join(await realpath(at), ...missing)
    } catch (error) {
      const code = errorCode(error)
      if ((code !== 'ENOENT' && code !== 'ENOTDIR') || dirname(at) === at) throw error
      await refuseDeadLink(at)
      missing.unshift(basename(at))
    }
  }
}

/** What is written through it would come into being wherever it points. */
async function refuseDeadLink(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined)
  if (!found?.isSymbolicLink()) return
  throw new Error(`${path} is a symbolic link to ${await readlink(path)}, which does not exist. Delete the link first.`)
}
