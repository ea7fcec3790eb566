import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { asNobody, makeToolWorkspace } from '../../../../test/support/tool-workspace.ts'
import { fileGlob } from './file-glob.ts'
import { grep } from './grep.ts'
import type { ToolCall } from './tool.ts'

let work: ReturnType<typeof makeToolWorkspace>
beforeEach(() => {
  work = makeToolWorkspace({ secrets: ['hunter2'] })
  execFileSync('git', ['init', '-q'], { cwd: work.toolsFolder })
})
afterEach(() => {
  vi.unstubAllEnvs()
  work[Symbol.dispose]()
})

const search = (input: object, options: Partial<ToolCall> = {}) =>
  work.call(grep, input, options).then(({ result }) => result)
const list = (input: object) => work.call(fileGlob, input).then(({ result }) => result)
const matches = async (input: object) =>
  ((await search(input)).files as { path: string; matches: { line: number; text: string }[] }[]).flatMap((file) =>
    file.matches.map(({ line, text }) => `${file.path}:${line}:${text}`),
  )

test('grep finds lines of any of its queries, hidden files included, ignored ones and git’s own left out', async () => {
  work.write('.gitignore', 'dist/\n*.log\n')
  work.write('src/b.ts', 'first\r\nconst needle = 1\r\n')
  work.write('src/a.ts', 'hay\nneedle, key hunter2\nthread\n')
  work.write('.github/ci.yml', 'needle: yes\n')
  work.write('dist/out.js', 'needle\n')
  work.write('x.log', 'needle\n')
  work.write('.git/description', 'needle\n')
  work.write('sub/.git', 'needle\n')
  work.write('image.bin', Buffer.from('needle\0'))
  expect(await matches({ queries: ['need(le)', '^thread$'] })).toEqual([
    '.github/ci.yml:1:needle: yes',
    'src/a.ts:2:needle, key ***',
    'src/a.ts:3:thread',
    'src/b.ts:2:const needle = 1',
  ])
  expect(await matches({ queries: ['NEEDLE'], case_sensitive: false, include: ['*.yml', 'src/**/b.*'] })).toEqual([
    '.github/ci.yml:1:needle: yes',
    'src/b.ts:2:const needle = 1',
  ])
  expect(await matches({ queries: ['needle'], include: ['*.js', '*.log'] })).toEqual([])
  expect(await matches({ queries: ['needle'], path: 'dist', include_ignored: true })).toEqual(['dist/out.js:1:needle'])
  expect(await matches({ queries: ['needle'], path: 'src/b.ts' })).toEqual(['src/b.ts:2:const needle = 1'])
  expect(await search({ queries: ['nowhere'] })).toEqual({ files: [], cut: undefined, note: 'Nothing was found.' })
})

test('what ripgrep says of a broken pattern is for the model to read', async () => {
  await expect(search({ queries: ['(unclosed'] })).rejects.toThrow(/regex parse error.*unclosed group/s)
  await expect(search({ queries: ['x'], path: 'absent' })).rejects.toThrow('absent does not exist.')
  expect(() => grep.input.parse({ queries: ['a\nb'] })).toThrow('must not hold line breaks')
  expect(await search({ queries: ['--help', '-e'] })).toMatchObject({ files: [] })
})

test('a search that finds too much is cut, and long lines are, too', async () => {
  work.write('many.txt', 'match\n'.repeat(100_000))
  work.write('wide.min.js', `match ${'x'.repeat(1_000_000)}`)
  const result = await search({ queries: ['match'] })
  expect((result.files as { matches: unknown[] }[])[0]?.matches.length).toBe(500)
  expect(result.cut).toContain('more than these 500 lines')
  const [line = ''] = await matches({ queries: ['match'], path: 'wide.min.js' })
  expect(line.length).toBeLessThan(500)
})

test('names of any kind', async () => {
  const odd = 'with space: 1:é.txt'
  work.write(odd, 'needle\n')
  work.write('-flag', 'needle\n')
  expect(await matches({ queries: ['needle'] })).toEqual(['-flag:1:needle', `${odd}:1:needle`])
  expect(await matches({ queries: ['needle'], path: '-flag' })).toEqual(['-flag:1:needle'])
  expect((await list({ patterns: ['*'] })).files).toEqual(['-flag', odd])
})

test('files that may not be read are passed over', async ({ skip }) => {
  if (process.getuid?.() !== 0) skip('as root the files of somebody else can be made')
  work.write('open.txt', 'needle\n')
  work.write('closed.txt', 'needle\n')
  chmodSync(join(work.toolsFolder, 'closed.txt'), 0o600)
  expect(await asNobody(() => matches({ queries: ['needle'] }))).toEqual(['open.txt:1:needle'])
})

test('a stopped search has ended when the call rejects', async () => {
  work.write('slow-rg', '#!/bin/sh\necho $$ > pid\nexec sleep 1000\n')
  chmodSync(join(work.toolsFolder, 'slow-rg'), 0o755)
  vi.stubEnv('OZ_RIPGREP', join(work.toolsFolder, 'slow-rg'))
  const stop = new AbortController()
  const running = search({ queries: ['x'] }, { signal: stop.signal })
  await expect.poll(() => work.read('pid')).toMatch(/\d\n/)
  stop.abort(new Error('stopped'))
  await expect(running).rejects.toThrow('stopped')
  expect(() => process.kill(Number(work.read('pid')), 0)).toThrow('ESRCH')
})

test('a machine without ripgrep is told of', async () => {
  vi.stubEnv('OZ_RIPGREP', '/nowhere/rg')
  await expect(search({ queries: ['x'] })).rejects.toThrow('ripgrep could not be started')
})

test('file_glob lists what fits, sorted, with the total', async () => {
  work.write('.gitignore', 'node_modules\n')
  for (const name of ['src/b.ts', 'src/a.test.ts', 'lib/c.tsx', '.github/w.yml', 'node_modules/x/i.ts', '.env']) {
    work.write(name, '')
  }
  symlinkSync('src', join(work.toolsFolder, 'link'))
  expect(await list({ patterns: ['*.ts'] })).toMatchObject({ files: ['src/a.test.ts', 'src/b.ts'], total: 2 })
  expect((await list({ patterns: ['**/*.{ts,tsx}', '!*.test.ts'] })).files).toEqual(['lib/c.tsx', 'src/b.ts'])
  expect((await list({ patterns: ['**/*.yml', '.env'] })).files).toEqual(['.env', '.github/w.yml'])
  expect((await list({ patterns: ['./src/*.ts'] })).files).toEqual(['src/a.test.ts', 'src/b.ts'])
  expect((await list({ patterns: ['src/'] })).files).toEqual(['src/a.test.ts', 'src/b.ts'])
  expect((await list({ patterns: ['*.ts'], path: 'src' })).files).toEqual(['src/a.test.ts', 'src/b.ts'])
  expect((await list({ patterns: ['i.ts'], include_ignored: true })).files).toEqual(['node_modules/x/i.ts'])
  expect(await list({ patterns: ['*.rs'] })).toMatchObject({ files: [], total: 0, note: 'No file fits.' })
})

test('a long list is cut and counted', async () => {
  for (let i = 0; i < 1_200; i++) writeFileSync(join(work.toolsFolder, `f${i}`), '')
  const result = await list({ patterns: ['*'] })
  expect((result.files as string[]).length).toBe(1_000)
  expect(result).toMatchObject({ total: 1_200, cut: expect.stringContaining('first 1000 of 1200') })
})

test('patterns that would take for ever are refused', () => {
  expect(() => fileGlob.input.parse({ patterns: ['{a,b}'.repeat(20)] })).toThrow('pairs of braces')
  expect(() => fileGlob.input.parse({ patterns: ['{1..10000000}'] })).toThrow('ranges in braces')
})

test('a hundred thousand files are searched and listed in seconds', { timeout: 120_000 }, async () => {
  const big = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'oz-many-'))
  try {
    for (let folder = 0; folder < 100; folder++) {
      mkdirSync(join(big, `d${folder}`))
      for (let i = 0; i < 1_000; i++)
        writeFileSync(join(big, `d${folder}`, `f${i}.txt`), i === 999 ? 'needle\n' : 'hay\n')
    }
    const start = performance.now()
    const found = await search({ queries: ['needle'], path: big })
    expect((found.files as unknown[]).length).toBe(100)
    expect(await list({ patterns: ['*.txt'], path: big })).toMatchObject({ total: 100_000 })
    expect(await list({ patterns: ['f7.txt'], path: big })).toMatchObject({ total: 100, cut: undefined })
    expect(performance.now() - start).toBeLessThan(45_000)
  } finally {
    rmSync(big, { recursive: true, force: true })
  }
})
