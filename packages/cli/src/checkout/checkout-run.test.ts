import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openConnection } from '../connection.ts'
import { checkoutRun } from './checkout-run.ts'

const runId = '0198c2f0-0000-7000-8000-000000000001'
const identity = ['-c', 'user.name=Test', '-c', 'user.email=test@example.invalid', '-c', 'commit.gpgSign=false']

/** A clone of the user's, and a server that has saved what a run made of the same repository. */
async function makeScene({ uncommitted }: { uncommitted: boolean }) {
  const folder = await mkdtemp(join(tmpdir(), 'oz-checkout-test-'))
  const git = (where: string, ...args: string[]) =>
    execFileSync('git', ['-C', join(folder, where), ...identity, ...args], { encoding: 'utf8', stdio: 'pipe' }).trim()
  execFileSync('git', ['init', '--quiet', '--initial-branch=main', join(folder, 'clone')])
  await writeFile(join(folder, 'clone', 'a.txt'), 'one\n')
  git('clone', 'add', '.')
  git('clone', 'commit', '--quiet', '-m', 'first')
  execFileSync('git', ['clone', '--quiet', join(folder, 'clone'), join(folder, 'work')])

  const base = git('work', 'rev-parse', 'HEAD')
  await writeFile(join(folder, 'work', 'a.txt'), 'two\n')
  git('work', 'commit', '--quiet', '-am', 'second')
  const head = git('work', 'rev-parse', 'HEAD')
  if (uncommitted) {
    await writeFile(join(folder, 'work', 'new.txt'), 'left over\n')
    git('work', 'add', '.')
    git('work', 'commit', '--quiet', '-m', 'worktree')
  }
  git('work', 'update-ref', 'refs/oz/head', head)
  git('work', 'update-ref', 'refs/oz/worktree', 'HEAD')
  // What an agent saves beside them, where the run made such.
  git('work', 'update-ref', 'refs/oz/stash', git('work', 'commit-tree', 'HEAD^{tree}', '-p', head, '-m', 'put away'))
  git('work', 'update-ref', 'refs/oz/branches/side/one', head)
  git('work', 'bundle', 'create', '--quiet', join(folder, 'bundle'), '--glob=refs/oz/*', `^${base}`)
  const server = await serveWorkspace({
    bundle: await readFile(join(folder, 'bundle')),
    repository: { base, head, commits: 1, uncommitted, files_changed: uncommitted ? 2 : 1 },
  })
  const connection = openConnection({ serverUrl: server.url, apiKey: 'wk-test', env: {} })
  return {
    clone: join(folder, 'clone'),
    head,
    git: (...args: string[]) => git('clone', ...args),
    checkout: (more: { branch?: string; force?: boolean; repo?: string; dir?: string; attempt?: number } = {}) =>
      checkoutRun({ connection, runId, repo: join(folder, 'clone'), ...more }),
    async [Symbol.asyncDispose]() {
      await connection[Symbol.asyncDispose]()
      await server.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

async function serveWorkspace({ bundle, repository }: { bundle: Buffer; repository: object }) {
  const saved = { dir: 'a', url: null, branch: null, insertions: 2, deletions: 1, has_bundle: true, has_diff: true }
  const workspace = {
    run_id: runId,
    saved_at: '2026-11-23T12:00:00Z',
    repositories: [{ ...saved, ...repository }],
    left_out: [],
  }
  const server = createServer((request, response) => {
    // One attempt's own work, and what the run goes on from.
    const path = request.url?.replace(/\?attempt=1$/, '')
    if (path === `/api/v1/agent/runs/${runId}/workspace`) response.end(JSON.stringify(workspace))
    else if (path === `/api/v1/agent/runs/${runId}/workspace/0/bundle`) response.end(bundle)
    else response.writeHead(404).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

test('commits and uncommitted work arrive as a branch, and nothing else in the clone changes', async () => {
  await using scene = await makeScene({ uncommitted: true })
  await writeFile(join(scene.clone, 'a.txt'), 'my own unsaved work\n')
  const before = [scene.git('status', '--porcelain'), scene.git('rev-parse', 'HEAD'), scene.git('stash', 'list')]

  const result = await scene.checkout()
  expect(result).toMatchObject({ branch: `oz/${runId}`, repository: scene.clone, commits: 1, uncommitted: true })
  expect(scene.git('log', '--format=%s', `main..oz/${runId}`).split('\n')).toEqual([
    `Uncommitted work of run ${runId}`,
    'second',
  ])
  expect(scene.git('show', `oz/${runId}:new.txt`)).toBe('left over')
  expect(scene.git('for-each-ref', '--format=%(refname)').split('\n')).toEqual([
    'refs/heads/main',
    `refs/heads/oz/${runId}`,
  ])
  expect([scene.git('status', '--porcelain'), scene.git('rev-parse', 'HEAD'), scene.git('stash', 'list')]).toEqual(
    before,
  )
  expect(await readFile(join(scene.clone, 'a.txt'), 'utf8')).toBe('my own unsaved work\n')
})

test('a run that committed everything gives exactly its commits', async () => {
  await using scene = await makeScene({ uncommitted: false })
  expect((await scene.checkout({ branch: 'try' })).commit).toBe(scene.head)
  expect(scene.git('rev-parse', 'try')).toBe(scene.head)
})

test('doing it again gives the same commit', async () => {
  await using scene = await makeScene({ uncommitted: true })
  const first = await scene.checkout()
  expect((await scene.checkout()).commit).toBe(first.commit)
})

test('what a run saved beside its branch leaves no ref behind, also when the branch cannot be made', async () => {
  await using scene = await makeScene({ uncommitted: true })
  const left = () => scene.git('for-each-ref', '--format=%(refname)', 'refs/oz')
  await scene.checkout()
  expect(left()).toBe('')
  scene.git('branch', 'other', scene.git('commit-tree', 'main^{tree}', '-m', 'other work'))
  await expect(scene.checkout({ branch: 'other' })).rejects.toMatchObject({ code: 'checkout_branch_exists' })
  expect(left()).toBe('')
})

test('a branch with other work is replaced only by force, one that is behind moves on', async () => {
  await using scene = await makeScene({ uncommitted: false })
  scene.git('branch', 'behind', 'main')
  expect((await scene.checkout({ branch: 'behind' })).commit).toBe(scene.head)

  const other = scene.git('commit-tree', 'main^{tree}', '-m', 'other work')
  scene.git('branch', 'other', other)
  await expect(scene.checkout({ branch: 'other' })).rejects.toMatchObject({ code: 'checkout_branch_exists' })
  expect(scene.git('rev-parse', 'other')).toBe(other)
  expect((await scene.checkout({ branch: 'other', force: true })).commit).toBe(scene.head)
})

test('a branch that is checked out is never moved', async () => {
  await using scene = await makeScene({ uncommitted: false })
  await expect(scene.checkout({ branch: 'main', force: true })).rejects.toMatchObject({
    code: 'checkout_branch_in_use',
  })
})

test('a folder that is no clone, or the clone of something else, is named', async () => {
  await using scene = await makeScene({ uncommitted: false })
  await expect(scene.checkout({ repo: tmpdir() })).rejects.toMatchObject({ code: 'clone_missing' })
  await using other = await makeScene({ uncommitted: true })
  other.git('commit', '--quiet', '--amend', '-m', 'another history')
  other.git('reflog', 'expire', '--expire=now', '--all')
  other.git('gc', '--quiet', '--prune=now')
  await expect(scene.checkout({ repo: other.clone })).rejects.toMatchObject({ code: 'checkout_base_missing' })
  await expect(scene.checkout({ branch: 'no..name' })).rejects.toMatchObject({ code: 'flag_invalid' })
})

test('what one attempt had changed gets a branch of its own', async () => {
  await using scene = await makeScene({ uncommitted: false })
  expect(await scene.checkout({ attempt: 1 })).toMatchObject({ branch: `oz/${runId}-attempt-1`, commit: scene.head })
  await expect(scene.checkout({ attempt: 2 })).rejects.toMatchObject({ name: 'AppError' })
})
