import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mirrorName, repositoryAddress } from '@openoz/machine'
import type { SourceRepo } from '@openoz/protocol'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { git, makeRepository } from '../../../test/support/agent-fixture.ts'
import { type GitHttpServer, startGitHttpServer } from '../../../test/support/git-http-server.ts'
import type { StepReporter } from './backends/backend.ts'
import { createMirrors } from './mirrors.ts'
import { createAssignment, startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

const login = { user: 'operator', password: 'hunter2-of-the-operator' }
let folder: ReturnType<typeof createFolder>
let host: GitHttpServer
let origin: string
beforeEach(async () => {
  folder = createFolder()
  origin = makeRepository(join(folder.path, 'origins', 'private'), { 'a.txt': 'one\n' })
  host = await startGitHttpServer(join(folder.path, 'origins'), { login })
})
afterEach(async () => {
  await host[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

/** The environment of an operator whose git knows the login by its credential helper. */
function operatorEnv(): NodeJS.ProcessEnv {
  const home = join(folder.path, 'home')
  mkdirSync(home, { recursive: true })
  const stored = host.url('').replace('//', `//${login.user}:${login.password}@`)
  writeFileSync(join(home, 'credentials'), `${stored}\n`, { mode: 0o600 })
  writeFileSync(join(home, '.gitconfig'), `[credential]\n\thelper = store --file=${join(home, 'credentials')}\n`)
  return { PATH: process.env.PATH, HOME: home }
}

let tasks = 0
/** Offers the mirrors to one task, as the backend does, and waits for them. */
async function offer(sources: SourceRepo[], options: Partial<Parameters<typeof createMirrors>[0]> = {}) {
  const mirrors = createMirrors({
    folder: join(folder.path, 'mirrors'),
    serverUrl: 'http://127.0.0.1:1',
    apiKey: 'wk-1',
    env: operatorEnv(),
    log: pino({ level: 'silent' }),
    ...options,
  })
  const given = join(folder.path, `task-${++tasks}`, 'given')
  mkdirSync(given, { recursive: true })
  const steps: string[] = []
  const reporter: StepReporter = {
    started: (step) => steps.push(`${step} started`),
    completed: (step, detail) => steps.push(`${step} completed: ${detail}`),
    failed: (step, detail) => steps.push(`${step} failed: ${detail}`),
    progress() {},
  }
  const signal = new AbortController().signal
  const log = pino({ level: 'silent' })
  const { done } = await mirrors.offer(sources, { folder: given, isOtherUser: false, signal, reporter, log })
  const coming = readdirSync(given)
  await done
  const at = (url: string, kind = 'git') => join(given, `${mirrorName(repositoryAddress(url))}.${kind}`)
  return { mirrors, given, steps, coming, at, names: readdirSync(given) }
}

const mirrorOf = (url: string): string => {
  const [scope = ''] = readdirSync(join(folder.path, 'mirrors'))
  return join(folder.path, 'mirrors', scope, mirrorName(repositoryAddress(url)))
}

test('a private repository is mirrored with the operator’s own login, which is nowhere in the mirror', async () => {
  const url = host.url('private')
  const { at, steps, coming, names } = await offer([{ url }])
  expect(coming).toEqual([expect.stringMatching(/^[0-9a-f]{32}\.pending$/)])
  expect(names).toEqual([expect.stringMatching(/^[0-9a-f]{32}\.git$/)])
  expect(steps).toEqual(['mirror started', `mirror completed: ${url}: cloned`])
  expect(git(at(url), 'rev-parse', 'main')).toBe(git(origin, 'rev-parse', 'main'))
  const found = execFileSync('sh', ['-c', `grep -r hunter2 ${folder.path}/mirrors ${folder.path}/task-* || true`])
  expect(String(found)).toBe('')
})

test('the next task gets what is new, and its own copy of it, whatever becomes of the mirror', async () => {
  const url = host.url('private')
  const first = await offer([{ url }])
  git(origin, 'commit', '-q', '--allow-empty', '-m', 'Second')
  git(origin, 'branch', 'topic')
  git(origin, 'symbolic-ref', 'HEAD', 'refs/heads/topic')
  const second = await offer([{ url }])
  expect(second.steps.at(-1)).toBe(`mirror completed: ${url}: fetched`)
  expect(git(second.at(url), 'log', '-1', '--format=%s', 'HEAD')).toBe('Second')
  expect(git(second.at(url), 'symbolic-ref', 'HEAD')).toBe('refs/heads/topic')
  expect(git(first.at(url), 'branch', '--list')).toBe('* main')

  git(origin, 'symbolic-ref', 'HEAD', 'refs/heads/main')
  git(origin, 'branch', '-D', 'topic')
  const third = await offer([{ url }])
  expect(git(third.at(url), 'branch', '--list')).toBe('* main')
  rmSync(join(folder.path, 'mirrors'), { recursive: true })
  expect(git(second.at(url), 'fsck', '--connectivity-only')).toBe('')
})

test('what a run names beside branches and tags is there too', async () => {
  git(origin, 'checkout', '-q', '--detach')
  git(origin, 'commit', '-q', '--allow-empty', '-m', 'Pull')
  const pull = git(origin, 'rev-parse', 'HEAD')
  git(origin, 'update-ref', 'refs/pull/7/head', pull)
  git(origin, 'commit', '-q', '--allow-empty', '-m', 'Dangling')
  const dangling = git(origin, 'rev-parse', 'HEAD')
  git(origin, 'checkout', '-q', 'main')
  const url = host.url('private')
  const refs = ['refs/pull/7/head', dangling, 'absent', '--upload-pack=id', 'bad..name']
  const { at } = await offer(refs.map((ref, i) => ({ url, ref, dir: `clone-${i}` })))
  expect(git(at(url), 'rev-parse', 'refs/pull/7/head')).toBe(pull)
  expect(git(at(url), 'cat-file', '-t', dangling)).toBe('commit')
})

test('a repository that the operator cannot read is a failure in words, without a mirror', async () => {
  const url = host.url('private')
  const env = { PATH: process.env.PATH, HOME: join(folder.path, 'nobody') }
  const { at, steps, names } = await offer([{ url }], { env })
  expect(names).toEqual([expect.stringMatching(/\.failed$/)])
  expect(readFileSync(at(url, 'failed'), 'utf8')).toMatch(/it asks for a login/)
  expect(steps.at(-1)).toMatch(/^mirror failed: .*not mirrored: it asks for a login/)
})

test('addresses with a login, and repositories on this machine’s own disk, are not mirrored', async () => {
  const withLogin = host.url('private').replace('//', '//me:secret@')
  const { names, steps } = await offer([{ url: withLogin }, { url: `file://${origin}` }, { url: 'no address' }])
  expect({ names, steps }).toEqual({ names: [], steps: [] })
  // Also not by an address that the operator's git puts in the place of another.
  const env = operatorEnv()
  writeFileSync(join(String(env.HOME), '.gitconfig'), `[url "file://${folder.path}/"]\n\tinsteadOf = https://inside/\n`)
  const { steps: redirected } = await offer([{ url: 'https://inside/origins/private' }], { env })
  expect(redirected.at(-1)).toMatch(/^mirror failed: /)
})

test('tasks of one repository at the same time, of two workers, each get it', async () => {
  const url = host.url('private')
  const all = await Promise.all([offer([{ url }]), offer([{ url }]), offer([{ url }])])
  for (const { at } of all) expect(git(at(url), 'log', '-1', '--format=%s')).toBe('Begin')
})

test('a mirror is of one key, so that no team gets what another one may read', async () => {
  const url = host.url('private')
  await offer([{ url }])
  const { names } = await offer([{ url }], { apiKey: 'wk-2', env: { PATH: process.env.PATH, HOME: folder.path } })
  expect(names).toEqual([expect.stringMatching(/\.failed$/)])
})

test('a mirror that is broken, or was left by a worker that was killed, is mended', async () => {
  const url = host.url('private')
  await offer([{ url }])
  const repository = join(mirrorOf(url), 'repository.git')
  writeFileSync(join(repository, 'packed-refs.lock'), '')
  mkdirSync(join(mirrorOf(url), 'new.git'))
  expect((await offer([{ url }])).steps.at(-1)).toContain('fetched')
  rmSync(join(repository, 'HEAD'))
  const { steps, at } = await offer([{ url }])
  expect(steps.at(-1)).toContain('cloned')
  expect(git(at(url), 'log', '-1', '--format=%s')).toBe('Begin')
})

test('mirrors that nobody used for long go, and so do the oldest of too many', async () => {
  makeRepository(join(folder.path, 'origins', 'other'), {})
  const [url, other] = [host.url('private'), host.url('other')]
  const { mirrors } = await offer([{ url }, { url: other }])
  await mirrors.sweep()
  expect([existsSync(mirrorOf(url)), existsSync(mirrorOf(other))]).toEqual([true, true])
  const before = Date.now() / 1000 - 31 * 24 * 3600
  utimesSync(join(mirrorOf(url), 'used'), before, before)
  await mirrors.sweep()
  expect([existsSync(mirrorOf(url)), existsSync(mirrorOf(other))]).toEqual([false, true])

  const { mirrors: small } = await offer([{ url }], { maxBytes: 1 })
  await small.sweep()
  expect(existsSync(mirrorOf(url))).toBe(false)
  expect(readdirSync(join(mirrorOf(url), '..'))).toEqual([])
})

test('a task of the direct backend sees its own mirrors only, cannot change them, and starts without waiting for them', async () => {
  const release = Promise.withResolvers<void>()
  host.hold = release.promise
  makeRepository(join(folder.path, 'origins', 'other'), {})
  const url = host.url('private')
  await using cp = await startControlPlane()
  const look = 'ls "$OZ_MIRRORS_DIR" "$OZ_MIRRORS_DIR/../../../mirrors"'
  await using worker = startWorker(cp, folder.path, {
    env: operatorEnv(),
    cleanup: false,
    oz: `touch started; until ls "$OZ_MIRRORS_DIR"/*.git >/dev/null 2>&1; do sleep 0.05; done
git -c safe.directory='*' clone -q --upload-pack 'git -c safe.directory=* upload-pack' "$OZ_MIRRORS_DIR"/*.git clone
${look} >seen 2>&1; find "$OZ_MIRRORS_DIR" -writable >writable; id -u >user; grep -r hunter2 . >secret; exit 0`,
  })
  await worker.listening()
  const assignment = createAssignment({ config: { environment: { source_repos: [{ url }] } } })
  cp.send({ type: 'task_assignment', data: assignment })
  const workspace = join(worker.workspaceRoot, assignment.task_id)
  await until('the agent', () => existsSync(join(workspace, 'started')))
  release.resolve()
  expect(await cp.outcome(assignment.execution_id)).toMatchObject({ type: 'task_completed' })

  const read = (name: string) => readFileSync(join(workspace, name), 'utf8')
  expect(read('clone/a.txt')).toBe('one\n')
  expect(read('secret')).toBe('')
  const steps = cp.messagesOf('task_step').map(({ data }) => `${data.step} ${data.status}`)
  expect(steps.indexOf('mirror started')).toBeLessThan(steps.indexOf('start completed'))
  expect(steps.indexOf('mirror completed')).toBeGreaterThan(steps.indexOf('start completed'))
  if (process.getuid?.() !== 0) return
  expect(read('user')).not.toBe('0\n')
  expect(read('writable')).toBe('')
  expect(read('seen')).toMatch(/(No such file|Permission denied)/)
  const mirrors = join(worker.stateDir, 'mirrors')
  expect(statSync(mirrors).mode & 0o077).toBe(0)
})

test('a task that ends before its mirror is there leaves nothing behind, and an operator may want none', async () => {
  host.hold = new Promise(() => {})
  const config = { environment: { source_repos: [{ url: host.url('private') }] } }
  await using cp = await startControlPlane()
  const env = operatorEnv()
  await using worker = startWorker(cp, folder.path, { env, oz: 'exit 0' })
  await worker.listening()
  const { execution_id } = cp.assign({ config })
  expect(await cp.outcome(execution_id)).toMatchObject({ type: 'task_completed' })
  await worker.leavesNothing()

  await using second = await startControlPlane()
  using other = createFolder()
  await using without = startWorker(second, other.path, { env: { ...env, OZ_GIT_MIRRORS: 'off' }, oz: 'exit 0' })
  await without.listening()
  expect(await second.outcome(second.assign({ config }).execution_id)).toMatchObject({ type: 'task_completed' })
  expect(second.messagesOf('task_step').filter(({ data }) => data.step === 'mirror')).toEqual([])
  expect(existsSync(join(without.stateDir, 'mirrors'))).toBe(false)
})
