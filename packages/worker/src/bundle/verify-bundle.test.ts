import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { AgentManifest, BundleFile } from '@openoz/protocol'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createFolder } from '../test-support/worker.ts'
import { bundleHash, hashBundleFile, interpreterBytes, readBundleFile } from './bundle-file.ts'
import { verifyBundle } from './verify-bundle.ts'

let scratch: ReturnType<typeof createFolder>
let folder: string
let manifest: AgentManifest
beforeEach(async () => {
  scratch = createFolder()
  folder = join(scratch.path, 'agent')
  mkdirSync(join(folder, 'bin'), { recursive: true })
  const program = Buffer.concat([Buffer.from('head'), interpreterBytes('/agent/lib/ld.so', 64), Buffer.from('tail')])
  writeFileSync(join(folder, 'bin/node'), program, { mode: 0o755 })
  writeFileSync(join(folder, 'text'), 'some text')
  symlinkSync('node', join(folder, 'bin/other'))
  const parts: BundleFile[] = [
    { path: 'bin/node', mode: 0o755, size: program.length, sha256: '', interpreter: { offset: 4, size: 64 } },
    { path: 'text', mode: 0o644, size: 9, sha256: '' },
  ]
  const files: BundleFile[] = [{ path: 'bin/other', link: 'node' }]
  for (const file of parts) if ('mode' in file) files.push({ ...file, sha256: await hashBundleFile(folder, file) })
  const about = { platform: 'linux/amd64', is_patched: true, oz: '1', node: '24', ripgrep: '15', libc: '2.36' } as const
  manifest = { version: 1, hash: bundleHash(files), ...about, files, licences: [] }
  writeManifest()
})
afterEach(() => scratch[Symbol.dispose]())

function writeManifest(change: object = {}): void {
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify({ ...manifest, ...change }))
}

test('a bundle that is as its manifest says is fine, also as a copy in another place', async () => {
  expect((await verifyBundle(folder)).hash).toBe(manifest.hash)
  const copy = join(scratch.path, 'copy')
  cpSync(folder, copy, { recursive: true, verbatimSymlinks: true })
  expect((await verifyBundle(copy)).hash).toBe(manifest.hash)
})

test('a program that names another loader is still the same program, and is read as it was', async () => {
  const file = join(folder, 'bin/node')
  const program = readFileSync(file)
  interpreterBytes('/opt/somewhere else/lib/ld.so', 64).copy(program, 4)
  writeFileSync(file, program)
  expect((await verifyBundle(folder)).hash).toBe(manifest.hash)
  const [entry] = manifest.files.filter((one) => 'interpreter' in one)
  const chunks: Buffer[] = []
  if (entry && 'sha256' in entry) for await (const chunk of readBundleFile(folder, entry)) chunks.push(chunk)
  expect(Buffer.concat(chunks).toString()).toBe(`head${'/agent/lib/ld.so'.padEnd(64, '\0')}tail`)
})

test('the hash does not depend on the order of the files, and on everything else of them', () => {
  const [link, ...rest] = manifest.files
  expect(bundleHash([...manifest.files].reverse())).toBe(manifest.hash)
  for (const change of [{ path: 'a' }, { mode: 0o755 }, { sha256: '0'.repeat(64) }]) {
    const changed = [...rest.slice(0, -1), { ...rest.at(-1), ...change } as BundleFile]
    expect(bundleHash([link as BundleFile, ...changed])).not.toBe(manifest.hash)
  }
})

test.each<[string, RegExp, () => void]>([
  ['a changed byte', /bin\/node holds something else/, () => writeFileSync(join(folder, 'bin/node'), 'x'.repeat(72))],
  ['a cut file', /text has 4 bytes, not 9/, () => writeFileSync(join(folder, 'text'), 'some')],
  ['a missing file', /text is missing/, () => rmSync(join(folder, 'text'))],
  ['a file in the place of a link', /bin\/other is not the link/, () => replaceLink()],
  ['a link in the place of a file', /text is no file/, () => replaceByLink()],
  ['a program that may not be started', /bin\/node has another mode/, () => chmodSync(join(folder, 'bin/node'), 0o644)],
  ['one file too many', /bin\/extra does not belong/, () => writeFileSync(join(folder, 'bin/extra'), '')],
  ['another list than the hash is of', /list of files/, () => writeManifest({ hash: '0'.repeat(64) })],
  ['a manifest that is none', /no JSON/, () => writeFileSync(join(folder, 'manifest.json'), '{')],
  ['a manifest of another version', /not valid at `version`/, () => writeManifest({ version: 2 })],
  [
    'a manifest that leads out of the folder',
    /not valid at `files/,
    () => writeManifest({ files: [{ path: '../x', link: 'y' }] }),
  ],
])('%s is found', async (_, problem, damage) => {
  damage()
  const failed = verifyBundle(folder)
  await expect(failed).rejects.toMatchObject({ code: 'agent_bundle_broken', message: expect.stringMatching(problem) })
})

test('a folder without a manifest is no bundle', async () => {
  rmSync(join(folder, 'manifest.json'))
  await expect(verifyBundle(folder)).rejects.toMatchObject({ code: 'agent_bundle_missing' })
})

function replaceLink(): void {
  rmSync(join(folder, 'bin/other'))
  copyFileSync(join(folder, 'bin/node'), join(folder, 'bin/other'))
}

function replaceByLink(): void {
  renameSync(join(folder, 'text'), join(scratch.path, 'text'))
  symlinkSync(join(scratch.path, 'text'), join(folder, 'text'))
}
