import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { AppError } from '@openoz/protocol'
import { type Engine, importImage, tarOf } from '@openoz/worker'
import { programPath } from './private-engine.ts'

const run = promisify(execFile)

/** What the commands of a round call, and a shell. One of the last two is enough. */
const needed = ['sh', 'sleep', 'ls', 'grep', 'tr', 'env', 'cat']
const alternatives = ['setsid', 'nohup']

/**
 * An image for an engine without any, of this machine's own programs and the libraries that they load: nothing is pulled, and every Linux has them. Each
 * program is a file of its own name, which is how programs that are many in one know which they are. Resolves with its name.
 */
export async function importRoundImage(api: Engine): Promise<string> {
  const programs = new Map<string, string>()
  for (const name of [...needed, ...alternatives]) {
    const path = programPath(name)
    if (path !== undefined) programs.set(name, path)
    else if (needed.includes(name)) {
      const problem = `this machine has no ${name} for the image of the round; name another one with --image`
      throw new AppError('flag_invalid', { option: '--backend docker', problem })
    }
  }
  const libraries = (await Promise.all([...programs.values()].map(librariesOf))).flat()
  const files = new Map<string, { from: string; mode: number }>()
  for (const path of libraries) files.set(path, { from: path, mode: 0o755 })
  for (const [name, path] of programs) files.set(`/bin/${name}`, { from: path, mode: 0o755 })
  // Where a loader looks that does not know the folders by itself.
  if (existsSync('/etc/ld.so.cache')) files.set('/etc/ld.so.cache', { from: '/etc/ld.so.cache', mode: 0o644 })
  const archive = await tarOf([
    ...foldersOf([...files.keys()]).map((path) => ({
      name: `${path.slice(1)}/`,
      type: 'directory' as const,
      mode: 0o755,
    })),
    { name: 'tmp/', type: 'directory', mode: 0o1777 },
    { name: 'root/', type: 'directory', mode: 0o700 },
    { name: 'etc/passwd', mode: 0o644, body: 'root:x:0:0:root:/root:/bin/sh\n' },
    { name: 'etc/group', mode: 0o644, body: 'root:x:0:\n' },
    ...[...files].map(([path, { from, mode }]) => ({ name: path.slice(1), mode, body: readFileSync(from) })),
  ])
  await importImage(api, { repository: 'oz-chaos', tag: '1', archive })
  return 'oz-chaos:1'
}

/** Paths as the program's loader names them; none of what is linked to nothing. */
async function librariesOf(program: string): Promise<string[]> {
  const { stdout } = await run('ldd', [program]).catch(() => ({ stdout: '' }))
  return [...stdout.matchAll(/(?:^|\s)(\/\S+) \(0x/g)].flatMap(([, path]) => path ?? [])
}

/** Parents before what is in them. */
function foldersOf(paths: readonly string[]): string[] {
  const folders = new Set<string>(['/bin', '/etc'])
  for (const path of paths)
    for (let folder = dirname(path); folder !== '/'; folder = dirname(folder)) folders.add(folder)
  return [...folders].sort()
}
