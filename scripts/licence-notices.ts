import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { Metafile } from 'esbuild'
import { root } from './run-command.ts'

/** The licences of all libraries in a bundle, as they ask to be reproduced with copies of them. `beside` names those that are not bundled. */
export async function collectNotices(metafile: Metafile, beside: string[]): Promise<{ text: string; count: number }> {
  const require = createRequire(join(root, 'package.json'))
  const folders = new Set([
    ...Object.keys(metafile.inputs).flatMap((input) => packageFolder(join(root, input)) ?? []),
    ...beside.map((name) => packageFolder(require.resolve(name)) ?? ''),
  ])
  const notices = await Promise.all([...folders].filter((folder) => folder !== '').map(readNotice))
  const sorted = notices.sort((a, b) => a.title.localeCompare(b.title))
  const sections = sorted.map(({ title, text }) => `${'='.repeat(80)}\n${title}\n\n${text.trim()}\n`)
  const intro = 'openoz contains the following libraries, under their own licences.\n\n'
  return { text: intro + sections.join('\n'), count: sorted.length }
}

/** The package that a file below `node_modules` belongs to. */
function packageFolder(file: string): string | undefined {
  if (!file.includes('/node_modules/')) return undefined
  for (let folder = dirname(file); ; folder = dirname(folder)) {
    const isPackage = /\/node_modules\/(@[^/]+\/)?[^/]+$/.test(folder)
    if (isPackage) return existsSync(join(folder, 'package.json')) ? folder : undefined
    if (folder === dirname(folder)) return undefined
  }
}

async function readNotice(folder: string): Promise<{ title: string; text: string }> {
  const manifest = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as {
    name: string
    version: string
    license?: string
    author?: string | { name?: string }
  }
  const title = `${manifest.name} ${manifest.version} (${manifest.license ?? 'see below'})`
  const names = (await readdir(folder)).filter((name) => /^(licen[cs]e|notice|copying)/i.test(name)).sort()
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')))
  const author = typeof manifest.author === 'string' ? manifest.author : manifest.author?.name
  // A few packages ship no licence file, only its name.
  return {
    title,
    text: texts.length > 0 ? texts.join('\n\n') : `Copyright ${author ?? `the authors of ${manifest.name}`}`,
  }
}
