import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { AppError } from '@openoz/protocol'

const run = promisify(execFile)

/** What programs need of a machine to start: its loader, and its shared libraries by the names that they ask for. */
export interface Libraries {
  loader: string
  files: Map<string, string>
}

/**
 * What name resolution loads by name while it runs, in C libraries before 2.34. Later ones have it inside, and ship these for programs that name
 * them.
 */
const loadedByName = ['libnss_dns.so.2', 'libnss_files.so.2', 'libresolv.so.2']

/** Rejects with `agent_bundle_not_built` on systems with another C library than glibc, and when a library is missing. */
export async function collectLibraries(programs: readonly string[]): Promise<Libraries> {
  const files = new Map<string, string>()
  let loader: string | undefined
  for (const program of programs) {
    for (const { name, path } of await needed(program)) {
      if (/^ld-linux[\w-]*\.so\.\d+$/.test(name)) loader ??= path
      else if (/musl/.test(name))
        throw notBuilt('this system’s C library is musl, and glibc is what agents are built from')
      else files.set(name, await oneOf(files.get(name), path))
    }
  }
  const libc = files.get('libc.so.6')
  if (loader === undefined || libc === undefined) throw notBuilt('no program names a loader and a C library of glibc')
  for (const name of loadedByName) {
    const path = join(dirname(libc), name)
    if (!files.has(name) && existsSync(path)) files.set(name, path)
  }
  return { loader, files }
}

/** As the loader itself would find them, without running the program. */
async function needed(program: string): Promise<{ name: string; path: string }[]> {
  const { stdout } = await run('ldd', [program], { env: { PATH: process.env.PATH, LC_ALL: 'C' } }).catch(
    (error: { stdout?: string; stderr?: string; message: string }) => {
      // A static program.
      if (/not a dynamic executable/.test(error.stderr ?? '')) return { stdout: '' }
      throw notBuilt(`\`ldd ${program}\` failed (${(error.stderr || error.message).trim()})`)
    },
  )
  return stdout.split('\n').flatMap((line) => {
    const [, missing] = /^\s*(\S+) => not found/.exec(line) ?? []
    if (missing !== undefined) throw notBuilt(`${program} needs ${missing}, which is not there`)
    const [, name, path] = /^\s*(?:(\S+) => )?(\/\S+) \(0x/.exec(line) ?? []
    return path === undefined ? [] : [{ name: basename(name ?? path), path }]
  })
}

/** The same library may be found by several paths, never two of one name. */
async function oneOf(known: string | undefined, path: string): Promise<string> {
  if (known === undefined || (await realpath(known)) === (await realpath(path))) return path
  throw notBuilt(`${known} and ${path} are two libraries of one name`)
}

export function notBuilt(problem: string): AppError {
  return new AppError('agent_bundle_not_built', { problem })
}
