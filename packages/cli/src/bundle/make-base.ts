import { execFile } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { chmod, copyFile, mkdir, open, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { AgentManifest, BundleFile } from '@openoz/protocol'
import { bundleLoader, interpreterBytes } from '@openoz/worker'
import { type BundleParts, nodeLicence, sourceOf } from './bundle-parts.ts'
import { findInterpreter } from './elf.ts'
import { collectLibraries, type Libraries } from './libraries.ts'
import { collectLicences } from './licences.ts'
import { listFiles } from './list-files.ts'

const run = promisify(execFile)

/** Everything of a bundle but the code of `oz`, as a folder, and what its manifest says of it. */
export interface BundleBase {
  folder: string
  files: BundleFile[]
  licences: AgentManifest['licences']
}

/** Raised with every change of what is made from the same parts. */
const recipe = 2
/** Room for the path of a bundle that is relocated. */
const interpreterRoom = 256
const unusedAfterMs = 24 * 60 * 60 * 1000
const programScripts = ['oz', 'oz-task']

/**
 * Makes the part of a bundle that hardly ever changes, or finds it in `cache` as it was made from exactly these parts: copying and patching takes
 * seconds, and whoever builds does so many times a day. Several may do this at once; what another has just made is as good.
 */
export async function makeBase(parts: BundleParts, cache: string): Promise<BundleBase> {
  const libraries = await collectLibraries([...parts.programs.values()])
  const scripts = await readScripts()
  const key = await keyOf(parts, libraries, scripts)
  const folder = join(cache, `base-${key}`)
  const made = await readMade(folder)
  if (made) return made
  await mkdir(cache, { recursive: true })
  await removeUnused(cache)
  const draft = join(cache, `draft-${randomUUID()}`)
  try {
    const licences = await fill(join(draft, 'files'), { parts, libraries, scripts })
    const files = await listFiles(join(draft, 'files'))
    await writeFile(join(draft, 'made.json'), JSON.stringify({ files, licences }))
    await rename(draft, folder).catch(async (error: unknown) => {
      if (!(await readMade(folder))) throw error
    })
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
  return (await readMade(folder)) as BundleBase
}

async function readMade(folder: string): Promise<BundleBase | undefined> {
  const text = await readFile(join(folder, 'made.json'), 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  return { folder: join(folder, 'files'), ...(JSON.parse(text) as Pick<BundleBase, 'files' | 'licences'>) }
}

interface Ingredients {
  parts: BundleParts
  libraries: Libraries
  scripts: Map<string, string>
}

async function fill(folder: string, { parts, libraries, scripts }: Ingredients): Promise<AgentManifest['licences']> {
  const put = async (to: string, from: string) => {
    await mkdir(join(folder, dirname(to)), { recursive: true })
    await copyFile(await sourceOf(from), join(folder, to))
    const isProgram = /^(bin|libexec)\//.test(to)
    await chmod(join(folder, to), isProgram || to === 'lib/ld.so' ? 0o755 : 0o644)
  }
  for (const [to, from] of [...parts.programs, ...parts.files]) await put(to, from)
  await put('lib/ld.so', libraries.loader)
  for (const [name, from] of libraries.files) await put(`lib/${name}`, from)
  for (const [name, text] of scripts) await writeFile(join(folder, 'bin', name), text, { mode: 0o755 })
  for (const [to, target] of parts.links) await symlink(target, join(folder, to))
  // Nothing but what silences git; the examples of hooks are of no use.
  await mkdir(join(folder, 'share/git-templates/info'), { recursive: true })
  await writeFile(join(folder, 'share/git-templates/info/exclude'), '')
  if (parts.strip !== undefined) await run(parts.strip, ['--strip-all', join(folder, 'bin/node')])
  if (parts.patchelf === undefined) await writeFile(join(folder, 'lib/explicit-loader'), '')
  else
    await patch(folder, parts.patchelf, {
      programs: [...parts.programs.keys()],
      libraries: [...libraries.files.keys()],
    })
  const system = [...parts.programs.values(), ...libraries.files.values(), libraries.loader]
  const sources = await Promise.all(system.map(sourceOf))
  const own = [...parts.files.keys()].includes('etc/ca-certificates.crt') ? ['/usr/sbin/update-ca-certificates'] : []
  const ofNode = parts.files.has(nodeLicence)
    ? [{ component: 'node', version: parts.versions.node, file: nodeLicence }]
    : []
  return [...ofNode, ...(await collectLicences([...sources, ...system, ...own], join(folder, 'licences')))]
}

/** Programs name the loader and, as libraries do, where their libraries are: as seen from themselves, so that a bundle can lie anywhere. */
async function patch(
  folder: string,
  patchelf: string,
  { programs, libraries }: { programs: string[]; libraries: string[] },
): Promise<void> {
  const rpath = (to: string) => `$ORIGIN/${posix.relative(posix.dirname(to), 'lib') || '.'}`
  for (const to of programs) {
    const file = join(folder, to)
    const interpreter = await findInterpreter(file)
    const isStatic = interpreter === undefined && !to.endsWith('.node')
    if (isStatic) continue
    const room = interpreter ? ['--set-interpreter', `/${'x'.repeat(interpreterRoom - 2)}`] : []
    await run(patchelf, [...room, '--force-rpath', '--set-rpath', rpath(to), file])
    if (interpreter) await setInterpreter(file)
  }
  // The C library itself depends on nothing but the loader, and must not be moved about in.
  for (const name of libraries.filter((library) => library !== 'libc.so.6')) {
    await run(patchelf, ['--force-rpath', '--set-rpath', '$ORIGIN', join(folder, 'lib', name)])
  }
}

async function setInterpreter(file: string): Promise<void> {
  const place = await findInterpreter(file)
  if (!place) throw new Error(`${file} lost its interpreter`)
  await using handle = await open(file, 'r+')
  await handle.write(interpreterBytes(bundleLoader, place.size), 0, place.size, place.offset)
}

/** From sources they are files beside this one; in `dist/` the build has put them into `bundle/`. */
async function readScripts(): Promise<Map<string, string>> {
  const folder = new URL(import.meta.url.endsWith('.ts') ? './programs/' : './bundle/', import.meta.url)
  const texts = programScripts.map(async (name) => {
    return [name, await readFile(fileURLToPath(new URL(name, folder)), 'utf8')] as const
  })
  return new Map(await Promise.all(texts))
}

/** Changes whenever the same steps would make something else. The files themselves are not read: node alone has 127 MB. */
async function keyOf(parts: BundleParts, libraries: Libraries, scripts: Map<string, string>): Promise<string> {
  const { programs, files, links, patchelf, strip, versions } = parts
  const tools = [patchelf, strip].map((tool, index) => [`tool ${index}`, tool] as const)
  const copied = [...programs, ...files, ...libraries.files, ['ld.so', libraries.loader] as const, ...tools]
  const states = copied.map(async ([to, from]) => {
    if (from === undefined) return [to]
    const { size, mtimeMs } = await stat(from)
    return [to, await sourceOf(from), size, mtimeMs]
  })
  const text = JSON.stringify([recipe, versions, await Promise.all(states), [...links], [...scripts]])
  return createHash('sha256').update(text).digest('hex').slice(0, 24)
}

/** Of earlier versions of the parts; a draft that old was left by a build that was killed. */
async function removeUnused(cache: string): Promise<void> {
  for (const name of await readdir(cache)) {
    const { mtimeMs } = await stat(join(cache, name)).catch(() => ({ mtimeMs: Date.now() }))
    if (Date.now() - mtimeMs > unusedAfterMs) await rm(join(cache, name), { recursive: true, force: true })
  }
}
