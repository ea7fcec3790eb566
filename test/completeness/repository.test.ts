import { dirname, posix } from 'node:path'
import { expect, test } from 'vitest'
import { markdownFiles, read, repositoryFiles } from './documents.ts'

const files = repositoryFiles()
const textFiles = files.filter((path) => !/\.(png|ico|woff2|tgz)$/.test(path))

/** Written so that this file does not contain what it looks for. */
const forbidden: [what: string, pattern: RegExp][] = [
  ['a note to do something later', new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X'].join('|')})\\b`)],
  ['the host of a package registry', new RegExp(`registry[.](npm|yarn)|npm[.]pkg[.]|${'artifact' + 'ory'}`, 'i')],
  [
    'a path of one machine',
    new RegExp(`(?<![\\w.}])/(${['wor' + 'k', 'Us' + 'ers/\\w+', 'home/(?!user|ada|me|dev)\\w+'].join('|')})/`),
  ],
]

test.each(forbidden)('no file holds %s', (_, pattern) => {
  const found = textFiles.flatMap((path) =>
    read(path)
      .split('\n')
      .flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim().slice(0, 120)}`] : [])),
  )
  expect(found).toEqual([])
})

test('links between documents lead somewhere', () => {
  const broken = markdownFiles().flatMap((path) =>
    linksIn(read(path))
      .filter((link) => !leadsSomewhere(path, link))
      .map((link) => `${path}: ${link}`),
  )
  expect(broken).toEqual([])
})

test('files that documents name exist', () => {
  const named = markdownFiles().flatMap((page) =>
    [...read(page).matchAll(/`((?:packages|docs|test|scripts|demo|bench)\/[\w./-]+\.(?:ts|mjs|md|sql))`/g)].map(
      (match) => ({ page, path: match[1] ?? '' }),
    ),
  )
  const missing = named.filter(({ path }) => !/[A-Z]{4}/.test(path) && !files.includes(path))
  expect(missing).toEqual([])
})

test('the lock file names no server that packages were fetched from', () => {
  const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, { resolved?: string }> }
  const resolved = Object.values(lock.packages).flatMap((entry) => entry.resolved ?? [])
  expect(resolved.filter((address) => !address.startsWith('packages/'))).toEqual([])
})

test('the licence is the whole of Apache-2.0, and every package has it', () => {
  expect(read('LICENSE')).toContain('APPENDIX: How to apply the Apache License to your work.')
  for (const path of files.filter((name) => /^(packages\/[^/]+\/)?package\.json$/.test(name))) {
    expect((JSON.parse(read(path)) as { license?: string }).license, path).toBe('Apache-2.0')
  }
})

function linksIn(markdown: string): string[] {
  const prose = markdown.replaceAll(/^```[\s\S]*?^```/gm, '').replaceAll(/`[^`\n]*`/g, '')
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1] ?? '').filter((link) => !/^[a-z]+:/.test(link))
}

function leadsSomewhere(page: string, link: string): boolean {
  const [file = '', anchor] = link.split('#')
  const path = file === '' ? page : posix.normalize(posix.join(dirname(page), file)).replace(/\/$/, '')
  const exists = files.includes(path) || files.some((name) => name.startsWith(`${path}/`))
  if (!exists || anchor === undefined) return exists
  return anchorsIn(read(path)).includes(anchor)
}

/** As code hosts make them from headings. */
function anchorsIn(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  )
}
