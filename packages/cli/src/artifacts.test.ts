import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { useControlPlane } from './test-support/control-plane.ts'
import { runOz } from './test-support/run-program.ts'

/** Files on their way to runs and back, against one real control plane without a worker: every run waits. */
const home = useControlPlane()

const oz = (args: string[], env: NodeJS.ProcessEnv = {}) => runOz(args, { ...home.env, ...env })
const json = async (args: string[], env?: NodeJS.ProcessEnv) =>
  JSON.parse((await oz([...args, '--output-format', 'json'], env)).stdout)
const runCloud = ['agent', 'run-cloud', '--host', 'nobody', '-p']

async function file(name: string, content: string | Uint8Array = name): Promise<string> {
  const path = join(home.folder, name)
  await writeFile(path, content)
  return path
}

test('a run is started with files, labels and the mode that its prompt begins with', async () => {
  const [notes, design] = [await file('notes.txt'), await file('design.png', Buffer.from([1, 2, 3]))]
  const flags = ['--attach', notes, '--attach', design, '--metadata', 'ticket=SHOP-7', '--metadata', 'why=a=b']
  const { run_id } = await json([...runCloud, '/plan  how to do it', ...flags])
  expect(await json(['run', 'get', run_id])).toMatchObject({
    prompt: 'how to do it',
    mode: 'plan',
    metadata: { ticket: 'SHOP-7', why: 'a=b' },
  })
  const plain = await json([...runCloud, '/planning is hard'])
  expect(await json(['run', 'get', plain.run_id])).toMatchObject({ prompt: '/planning is hard', mode: 'normal' })
})

test('what cannot be attached or is no label is refused before a run is started', async () => {
  const runs = async () => (await json(['run', 'list', '--limit', '100'])).length
  const before = await runs()
  const large = await file('large.bin')
  await truncate(large, 10_000_001)
  const many = Array.from({ length: 6 }, () => ['--attach', join(home.folder, 'big.bin')]).flat()
  await truncate(await file('big.bin'), 9_000_000)
  for (const [flags, words] of [
    [['--attach', join(home.folder, 'gone.txt')], 'gone.txt does not exist'],
    [['--attach', home.folder], 'is no regular file'],
    [['--attach', large], 'has 10000001 bytes'],
    [many, 'together'],
    [Array.from({ length: 26 }, () => ['--attach', large]).flat(), '26 files are named'],
    [['--metadata', 'nothing'], 'not of the form key=value'],
  ] as const)
    expect(await oz([...runCloud, 'x', ...flags])).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining(words),
    })
  expect(await runs()).toBe(before)
})

test('a file is added to a run, shown, and downloaded under its own name without replacing one', async () => {
  const { run_id } = await json([...runCloud, 'x'])
  const path = await file('report.csv', 'a,b\n')
  const uploaded = await json(['artifact', 'upload', path, '--description', 'All of it'], { OZ_RUN_ID: run_id })
  expect(uploaded).toMatchObject({ filepath: path, mime_type: 'text/csv', size_bytes: 4, description: 'All of it' })
  const uid = uploaded.artifact_uid
  const shown = await oz(['artifact', 'get', uid])
  expect(shown.stdout).toMatch(/^Type +FILE$/m)
  expect(shown.stdout).toMatch(/^Description +All of it$/m)
  expect(await json(['artifact', 'get', uid])).toMatchObject({ data: { filename: 'report.csv' } })

  const out = join(home.folder, 'copy.csv')
  expect(await oz(['artifact', 'download', uid, '--out', out])).toMatchObject({
    exitCode: 0,
    stdout: `Saved as ${out}.\n`,
  })
  expect(await readFile(out, 'utf8')).toBe('a,b\n')
  // The name is the run's; whoever wants a file replaced has to say which.
  const { conversation_id } = await json(['run', 'get', run_id])
  const elsewhere = ['artifact', 'upload', path, '--conversation-id', conversation_id]
  expect(await oz(elsewhere, { OZ_RUN_ID: 'not an id' })).toMatchObject({ exitCode: 0 })
  expect(await oz(['artifact', 'upload', path])).toMatchObject({ exitCode: 2 })
  expect(await oz(['artifact', 'upload', home.folder, '--run-id', run_id])).toMatchObject({ exitCode: 2 })
  expect(await oz(['artifact', 'get', 'gone'])).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining('artifact_not_found'),
  })
  expect((await oz(['artifact', '--help'])).stdout).not.toContain('upload')
})

test('a plan is shown and saved with its text, and no name leads out of the folder', async () => {
  const answers: Record<string, object> = {
    plan: { artifact_type: 'PLAN', data: { title: 'How', content: '# Steps', content_type: 'text/markdown' } },
    evil: { artifact_type: 'FILE', data: { filename: '../../evil.txt', download_url: 'x/api/v1/agent/downloads/1' } },
  }
  const api = createServer((request, response) => {
    const uid = request.url?.split('/').at(-1) ?? ''
    if (uid === '1') return void response.end('evil')
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ artifact_uid: uid, created_at: '2026-01-02T03:04:05Z', ...answers[uid] }))
  })
  api.listen(0, '127.0.0.1')
  await once(api, 'listening')
  const env = {
    OZ_SERVER_URL: `http://127.0.0.1:${(api.address() as AddressInfo).port}`,
    OZ_API_KEY: 'wk-x',
  }
  try {
    expect((await oz(['artifact', 'get', 'plan'], env)).stdout).toContain('# Steps')
    const out = join(home.folder, 'plan.md')
    await oz(['artifact', 'download', 'plan', '-o', out], env)
    expect(await readFile(out, 'utf8')).toBe('# Steps')
    const here = process.cwd()
    try {
      process.chdir(home.folder)
      const saved = await oz(['artifact', 'download', 'evil'], env)
      expect(saved.stdout).toBe('Saved as evil.txt.\n')
      expect(existsSync(join(home.folder, 'evil.txt'))).toBe(true)
      expect(await oz(['artifact', 'download', 'evil'], env)).toMatchObject({
        exitCode: 2,
        stderr: expect.stringContaining('exists already'),
      })
    } finally {
      process.chdir(here)
    }
  } finally {
    api.closeAllConnections()
    api.close()
  }
})
