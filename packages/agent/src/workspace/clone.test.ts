import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mirrorName, repositoryAddress } from '@openoz/machine'
import type { SourceRepo } from '@openoz/protocol'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { git, makeRepository } from '../../../../test/support/agent-fixture.ts'
import { startGitHttpServer } from '../../../../test/support/git-http-server.ts'
import { until } from '../../../../test/support/poll.ts'
import { createRecordingSink } from '../../../../test/support/recording-sink.ts'
import { prepareRepositories } from './prepare.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-clone-'))
  for (const name of ['workspace', 'home']) mkdirSync(join(folder, name))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function prepare(sources: SourceRepo[], options: { timeoutMs?: number; path?: string; mirrors?: string } = {}) {
  const sink = createRecordingSink()
  const prepared = prepareRepositories({
    sources,
    folder: join(folder, 'workspace'),
    runId: 'run-1',
    env: { PATH: options.path ?? process.env.PATH, HOME: join(folder, 'home'), OZ_MIRRORS_DIR: options.mirrors },
    timeoutMs: options.timeoutMs ?? 20_000,
    signal: new AbortController().signal,
    sink,
    mask: (text) => text,
  })
  return Object.assign(prepared, { sink })
}

async function withServer(listener: RequestListener, work: (url: string) => Promise<void>): Promise<void> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    await work(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  } finally {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
}

test('one repository is where tools start, on the branch of the run, ready for commits', async () => {
  const origin = makeRepository(join(folder, 'origin'), { 'a.txt': 'a' })
  const { toolsFolder, repositories } = await prepare([{ url: `file://${origin}` }])

  const clone = join(folder, 'workspace', 'origin')
  expect(toolsFolder).toBe(clone)
  expect(repositories).toEqual([
    { dir: 'origin', folder: clone, url: `file://${origin}`, base: git(origin, 'rev-parse', 'HEAD'), isKept: false },
  ])
  expect(git(clone, 'branch', '--show-current')).toBe('oz/run-1')
  expect(git(clone, 'config', '--local', 'user.name')).toBe('openoz')
  expect(readFileSync(join(clone, 'a.txt'), 'utf8')).toBe('a')
  rmSync(origin, { recursive: true })
  expect(git(clone, 'log', '--oneline')).toContain('Begin')
})

test('several repositories leave the tools in the workspace', async () => {
  const first = makeRepository(join(folder, 'first'), {})
  const second = makeRepository(join(folder, 'second'), {})
  const prepared = await prepare([{ url: `file://${first}` }, { url: `file://${second}`, dir: 'sub/other' }])
  expect(prepared.toolsFolder).toBe(join(folder, 'workspace'))
  expect(prepared.repositories.map(({ dir }) => dir)).toEqual(['first', 'sub/other'])
})

test('several repositories are cloned at once, and their lines are told apart', async () => {
  await using host = await startGitHttpServer(folder)
  const names = ['one', 'two', 'three', 'four', 'five', 'six']
  for (const name of names) makeRepository(join(folder, name), { 'a.txt': name })
  const release = Promise.withResolvers<void>()
  host.hold = release.promise
  const prepared = prepare(names.map((name) => ({ url: host.url(name) })))
  const begun = () => prepared.sink.events.filter(({ data }) => (data as { status?: string }).status === 'started')
  await until(() => begun().length === 4)
  host.hold = undefined
  release.resolve()
  expect((await prepared).repositories.map(({ dir }) => dir)).toEqual(names)
  for (const name of names) expect(readFileSync(join(folder, 'workspace', name, 'a.txt'), 'utf8')).toBe(name)
  const lines = prepared.sink.events.flatMap(({ type, data }) =>
    type === 'terminal_output' ? [(data as { text: string }).text] : [],
  )
  for (const name of names) expect(lines).toContainEqual(expect.stringContaining(`[${name}] Cloning into`))
})

test('the first clone that fails ends the others, and nothing is left of them', async () => {
  makeRepository(join(folder, 'slow'), {})
  await using host = await startGitHttpServer(folder)
  host.hold = new Promise(() => {})
  const from = performance.now()
  const failed = prepare([{ url: host.url('slow') }, { url: `file://${folder}/absent` }])
  await expect(failed).rejects.toThrow(/it does not exist there/)
  expect(performance.now() - from).toBeLessThan(15_000)
  expect(readdirSync(join(folder, 'workspace'))).toEqual([])
})

describe('with mirrors of the worker', () => {
  // Nobody is there: what comes, comes from the mirror.
  const url = 'http://127.0.0.1:9/team/private.git'
  const at = (kind: string) => join(folder, 'mirrors', `${mirrorName(repositoryAddress(url))}.${kind}`)
  let origin: string
  beforeEach(() => {
    origin = makeRepository(join(folder, 'origin'), { 'a.txt': 'a' })
    mkdirSync(join(folder, 'mirrors'))
  })
  const makeMirror = (from = origin) => void git(folder, 'clone', '-q', '--mirror', '--no-hardlinks', from, at('git'))
  const mirrors = () => join(folder, 'mirrors')

  test('a repository comes from its mirror, and is as one from its host', async () => {
    writeFileSync(at('pending'), '')
    const prepared = prepare([{ url }], { mirrors: mirrors() })
    await until(() => prepared.sink.events.length > 0)
    makeMirror()
    const { repositories } = await prepared
    expect(repositories).toMatchObject([{ dir: 'private', url, base: git(origin, 'rev-parse', 'HEAD'), isKept: false }])
    const clone = join(folder, 'workspace', 'private')
    expect(git(clone, 'remote', 'get-url', 'origin')).toBe(url)
    expect(git(clone, 'branch', '--show-current')).toBe('oz/run-1')
    rmSync(mirrors(), { recursive: true })
    expect(git(clone, 'fsck', '--connectivity-only')).toBe('')
    expect(prepared.sink.notices()).toEqual([])
  })

  test('a ref of the host, or a commit that no branch holds, comes from the mirror too', async () => {
    git(origin, 'checkout', '-q', '--detach')
    git(origin, 'commit', '-q', '--allow-empty', '-m', 'Pull')
    const pull = git(origin, 'rev-parse', 'HEAD')
    git(origin, 'update-ref', 'refs/pull/7/head', pull)
    git(origin, 'checkout', '-q', 'main')
    makeMirror()
    const refs = ['refs/pull/7/head', pull].map((ref, i) => ({ url, ref, dir: `clone-${i}` }))
    const { repositories } = await prepare(refs, { mirrors: mirrors() })
    expect(repositories.map(({ base }) => base)).toEqual([pull, pull])
  })

  test.each([
    ['failed', () => writeFileSync(at('failed'), 'it asks for a login.'), /it asks for a login/],
    ['gone', () => [writeFileSync(at('pending'), ''), utimesSync(at('pending'), 1, 1)], /its worker is gone/],
    [
      'broken',
      () => [makeMirror(), rmSync(join(at('git'), 'objects'), { recursive: true })],
      /not a git repository|exist/,
    ],
  ])('where the mirror is %s, the clone is made from the host, with a notice', async (_, make, problem) => {
    await using host = await startGitHttpServer(folder)
    const real = host.url('origin')
    make()
    for (const kind of ['failed', 'pending', 'git']) {
      const name = join(mirrors(), `${mirrorName(repositoryAddress(real))}.${kind}`)
      if (existsSync(at(kind))) renameSync(at(kind), name)
    }
    const prepared = prepare([{ url: real }], { mirrors: mirrors() })
    expect((await prepared).repositories).toMatchObject([{ url: real }])
    expect(host.requests).not.toEqual([])
    expect(prepared.sink.notices()).toEqual([expect.stringMatching(problem)])
  })

  test('a repository without a mirror is cloned from its host without a word', async () => {
    const prepared = prepare([{ url: `file://${origin}` }], { mirrors: mirrors() })
    expect((await prepared).repositories).toHaveLength(1)
    expect(prepared.sink.notices()).toEqual([])
  })
})

test('a ref is a branch, a tag, a commit, or a ref of the host', async () => {
  const origin = makeRepository(join(folder, 'origin'), { 'a.txt': '1' })
  const first = git(origin, 'rev-parse', 'HEAD')
  git(origin, 'tag', '-a', 'v1', '-m', 'v1')
  git(origin, 'checkout', '-qb', 'topic/x')
  git(origin, 'commit', '-q', '--allow-empty', '-m', 'Second')
  const second = git(origin, 'rev-parse', 'HEAD')
  git(origin, 'update-ref', 'refs/pull/7/head', second)
  git(origin, 'checkout', '-q', 'main')
  git(origin, 'commit', '-q', '--allow-empty', '-m', 'Third')

  const url = `file://${origin}`
  const refs = ['topic/x', 'v1', first, 'refs/pull/7/head']
  const { repositories } = await prepare(refs.map((ref, i) => ({ url, ref, dir: `clone-${i}` })))
  expect(repositories.map(({ base }) => base)).toEqual([second, first, first, second])
  await expect(prepare([{ url, ref: 'absent', dir: 'c' }])).rejects.toThrow('it has no branch or tag `absent`')
  await expect(prepare([{ url, ref: 'ab'.repeat(20), dir: 'c' }])).rejects.toThrow('it has no commit')
  await expect(prepare([{ url, ref: '--upload-pack=id', dir: 'c' }])).rejects.toThrow('it has no branch or tag')
})

test('an empty repository can be worked in', async () => {
  const origin = join(folder, 'empty')
  mkdirSync(origin)
  git(origin, 'init', '-q', '--bare')
  const { repositories } = await prepare([{ url: `file://${origin}` }])
  expect(repositories[0]?.base).toBe(null)
  expect(git(join(folder, 'workspace', 'empty'), 'symbolic-ref', 'HEAD')).toBe('refs/heads/oz/run-1')
})

test('a folder that exists already is left as it is, and that is said', async () => {
  const origin = makeRepository(join(folder, 'origin'), {})
  const there = makeRepository(join(folder, 'workspace', 'origin'), { 'mine.txt': 'mine' })
  const prepared = prepare([{ url: `file://${origin}` }])
  expect((await prepared).repositories[0]?.base).toBe(git(there, 'rev-parse', 'HEAD'))
  expect(git(there, 'branch', '--show-current')).toBe('main')
  expect(prepared.sink.notices()).toEqual([expect.stringContaining('exists already')])
})

test('a clone that an earlier attempt at the run left still knows where the run began', async () => {
  const origin = makeRepository(join(folder, 'origin'), {})
  const first = await prepare([{ url: `file://${origin}` }])
  git(join(folder, 'workspace', 'origin'), 'commit', '-q', '--allow-empty', '-m', 'Work')
  const second = await prepare([{ url: `file://${origin}` }])
  expect(second.repositories).toEqual([{ ...first.repositories[0], isKept: true }])
})

test('two repositories for one folder are refused before anything is cloned', async () => {
  const sources = [{ url: 'a/same' }, { url: 'https://example.com/b/Same.git' }]
  await expect(prepare(sources)).rejects.toMatchObject({ code: 'repository_directory_conflict' })
})

test('a repository that does not exist fails in words, and leaves no folder behind', async () => {
  const failed = prepare([{ url: `file://${folder}/absent` }])
  await expect(failed).rejects.toMatchObject({ code: 'repository_clone_failed' })
  await expect(failed).rejects.toThrow(/it does not exist there/)
  expect(existsSync(join(folder, 'workspace', 'absent'))).toBe(false)
  expect(failed.sink.events.at(-1)).toMatchObject({ type: 'setup_step', data: { step: 'clone', status: 'failed' } })
  await withServer(
    (_request, response) => response.writeHead(404).end(),
    async (url) => {
      await expect(prepare([{ url: `${url}/a/b.git` }])).rejects.toThrow(/it does not exist there/)
    },
  )
})

test('a repository that asks for a login never waits for one', async () => {
  await withServer(
    (_request, response) => response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end(),
    async (url) => {
      await expect(prepare([{ url: `${url}/a/b.git` }])).rejects.toThrow(/it asks for a login/)
      const withPassword = prepare([{ url: `${url.replace('//', '//me:hunter2@')}/a/b.git`, dir: 'c' }])
      const error = await withPassword.catch((caught: Error) => caught)
      expect(String(error)).not.toContain('hunter2')
      expect(JSON.stringify(withPassword.sink.events)).not.toContain('hunter2')
    },
  )
})

test('a host that is unknown or does not answer is told apart', async () => {
  await expect(prepare([{ url: 'https://no-such-host.invalid/a/b.git' }])).rejects.toThrow(/host is unknown/)
  await withServer(
    () => {},
    async (url) => {
      await expect(prepare([{ url: `${url}/a/b.git` }], { timeoutMs: 500 })).rejects.toThrow(/it took too long/)
    },
  )
  await expect(prepare([{ url: 'http://127.0.0.1:9/a/b.git' }])).rejects.toThrow(/could not be made/)
})

test('a filter that hangs the checkout is ended with it, and the clone has failed', async () => {
  const origin = makeRepository(join(folder, 'origin'), { 'a.txt': 'a', '.gitattributes': '*.txt filter=stuck\n' })
  writeFileSync(join(folder, 'home', '.gitconfig'), '[filter "stuck"]\n\tsmudge = sleep 30\n')
  await expect(prepare([{ url: `file://${origin}` }], { timeoutMs: 1_500 })).rejects.toMatchObject({
    code: 'repository_clone_failed',
    details: { problem: 'it took too long.' },
  })
  expect(existsSync(join(folder, 'workspace', 'origin'))).toBe(false)
}, 15_000)

test('an address that is not properly encoded fails as a clone, not as a program', async () => {
  await withServer(
    (_request, response) => response.writeHead(404).end(),
    async (url) => {
      const failed = prepare([{ url: `${url}/a/%zz.git` }])
      await expect(failed).rejects.toMatchObject({ code: 'repository_clone_failed' })
    },
  )
})

test('without git the run says so', async () => {
  await expect(prepare([{ url: 'a/b' }], { path: folder })).rejects.toMatchObject({ code: 'git_missing' })
})

test('repositories of another user of the machine can be cloned', async ({ skip }) => {
  if (process.getuid?.() !== 0) skip()
  const origin = makeRepository(join(folder, 'origin'), { 'a.txt': 'a' })
  const { execFileSync } = await import('node:child_process')
  execFileSync('chown', ['-R', '65534:65534', origin])
  const { repositories } = await prepare([{ url: `file://${origin}` }])
  expect(repositories[0]?.base).toMatch(/^[0-9a-f]{40}$/)
})

test('an author that the machine knows is not replaced', async () => {
  writeFileSync(join(folder, 'home', '.gitconfig'), '[user]\n\tname = Me\n\temail = me@example.com\n')
  const origin = makeRepository(join(folder, 'origin'), {})
  await prepare([{ url: `file://${origin}` }])
  expect(readFileSync(join(folder, 'workspace', 'origin', '.git', 'config'), 'utf8')).not.toContain('[user]')
})
