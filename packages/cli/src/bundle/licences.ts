import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, readFile, realpath, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { AgentManifest } from '@openoz/protocol'

const run = promisify(execFile)

type Licence = AgentManifest['licences'][number]

const commonLicences = '/usr/share/common-licenses'

/**
 * Puts the terms of what was taken from this system into `folder`, `licences/` of a bundle: those of each distribution’s package that a file belongs
 * to. The licences of the copied programs ask for that, and some that the source can be had.
 */
export async function collectLicences(files: readonly string[], folder: string): Promise<Licence[]> {
  await mkdir(join(folder, 'common'), { recursive: true })
  const packages = await owners(files)
  const licences: Licence[] = []
  const named = new Set<string>()
  for (const [component, version] of packages) {
    const text = await readFile(`/usr/share/doc/${component}/copyright`, 'utf8').catch(() => undefined)
    if (text === undefined) continue
    await writeFile(join(folder, `${component}.txt`), text)
    licences.push({ component, version, file: `licences/${component}.txt` })
    for (const [, name = ''] of text.matchAll(/\/usr\/share\/common-licenses\/([\w.-]*\w)/g)) named.add(name)
  }
  for (const name of [...named].sort()) {
    const file = join(commonLicences, name)
    if (existsSync(file)) await cp(await realpath(file), join(folder, 'common', name))
  }
  await writeFile(join(folder, 'README.txt'), sourcesText(packages))
  return licences
}

/** Names and versions of the distribution's packages, sorted. Empty on a system that does not keep them as Debian does. */
async function owners(files: readonly string[]): Promise<[string, string][]> {
  // A library that was installed to /usr/lib may be known as one of /lib, and the other way round.
  const names = [...new Set(files.flatMap((file) => [file, `/usr${file}`, file.replace(/^\/usr(?=\/)/, '')]))]
  const query = (args: string[]) =>
    run('dpkg-query', args, { env: { PATH: process.env.PATH, LC_ALL: 'C' }, maxBuffer: 1e7 }).then(
      ({ stdout }) => stdout,
      // It fails for those it does not know, and answers for the others.
      (error: { stdout?: string }) => error.stdout ?? '',
    )
  const found = await query(['--search', ...names])
  const packages = [...found.matchAll(/^([^\s:,]+)(?::\w+)?: /gm)].map(([, name = '']) => name)
  if (packages.length === 0) return []
  const versions = await query(['--show', ...new Set(packages)])
  const lines = versions.split('\n').flatMap((line) => {
    const [name, version] = line.replace(/:\w+(?=\t)/, '').split('\t')
    return name && version ? [[name, version] as [string, string]] : []
  })
  return [...new Map(lines)].sort(([a], [b]) => (a < b ? -1 : 1))
}

function sourcesText(packages: [string, string][]): string {
  return `This folder holds programs and libraries of others, unchanged but for which loader and which libraries they name, and without symbols.

Their terms are beside this text, and in app/THIRD-PARTY-NOTICES.txt for the libraries of oz. node.txt is the licence of Node.js with those of what it
contains; where it is missing, it is the file LICENSE of Node's source of that version. ripgrep comes from the npm package "@vscode/ripgrep" and may be
used under the MIT licence or the Unlicense.

The packages of the distribution are the following. Their source is what the distribution publishes for exactly these versions
(on Debian: apt-get source NAME=VERSION).

${packages.map(([name, version]) => `${name} ${version}\n`).join('')}`
}
