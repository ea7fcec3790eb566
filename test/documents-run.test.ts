import { execFile, execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { markdownFiles, read } from './completeness/documents.ts'
import { makeRepository } from './support/agent-fixture.ts'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { makePrivateAuthority } from './support/private-authority.ts'
import { type ScriptedModel, startScriptedModel } from './support/scripted-model.ts'
import { programs, startWorkerProgram, type WorkerProgram } from './support/worker-program.ts'

/**
 * README and docs, tried as a new user would: every block of commands (```sh, ```bash) runs, in bash, against one control plane with one worker.
 * What is changed are names that stand for something of the reader's: addresses, keys, ids, repositories, files. Programs that serve
 * (`oz up`, `oz server`, `oz-agent-worker`) are stopped when they are ready. What cannot run here says why, and which test does it instead where there is one:
 * ```sh no-run: reason; tested by FILE.
 */
const run = promisify(execFile)

interface Block {
  page: string
  line: number
  info: string
  text: string
}

const pages = markdownFiles().filter((path) => path === 'README.md' || /^docs\/[\w-]+\.md$/.test(path))
const blocks = pages.flatMap(blocksOf)
const commands = blocks.filter(({ info }) => /^(sh|bash)\b/.test(info))
const runnable = commands.filter(({ info }) => !info.includes('no-run'))

function blocksOf(page: string): Block[] {
  const markdown = read(page)
  return [...markdown.matchAll(/^```(.*)\n([\s\S]*?)^```/gm)].map(({ index, 1: info = '', 2: text = '' }) => ({
    page,
    info,
    text,
    line: markdown.slice(0, index).split('\n').length,
  }))
}

test('blocks of commands are marked as such, and those that do not run say why', () => {
  const others = blocks.filter((block) => !commands.includes(block))
  const unmarked = others.filter(({ text }) => /^(npx|npm|oz|oz-agent-worker|curl|[A-Z_]+=\S+) /m.test(text))
  const inOtherLanguages = unmarked.filter(({ info }) => info !== 'yaml' && info !== 'groovy')
  expect(inOtherLanguages.map(({ page, line }) => `${page}:${line}`)).toEqual([])
  const excused = commands.filter((block) => !runnable.includes(block))
  for (const { page, line, info } of excused) expect(info, `${page}:${line}`).toMatch(/^sh no-run: \w.+/)
  const tested = excused.filter(({ info }) => /tested by \S+/.test(info))
  for (const { page, line, info } of tested)
    expect(existsSync(/tested by (\S+)/.exec(info)?.[1] ?? ''), `${page}:${line}`).toBe(true)
  expect(excused.length - tested.length).toBeLessThan(runnable.length)
})

const folder = mkdtempSync(join(tmpdir(), 'oz-documents-'))
const home = join(folder, 'home')
const shop = `file://${join(folder, 'shop')}`
let cp: ControlPlane
let model: ScriptedModel
let worker: WorkerProgram
let env: NodeJS.ProcessEnv
let runId = ''
let artifactUid = ''

async function start(): Promise<void> {
  // Tasks run as users of their own.
  chmodSync(folder, 0o755)
  const manifest = { name: 'shop', version: '1.0.0', scripts: { build: 'true' } }
  const lock = { ...manifest, lockfileVersion: 3, packages: { '': manifest } }
  const files = { 'package.json': JSON.stringify(manifest), 'package-lock.json': JSON.stringify(lock) }
  makeRepository(join(folder, 'shop'), files)
  mkdirSync(join(home, 'src'), { recursive: true })
  execFileSync('git', ['clone', '--quiet', shop, join(home, 'src', 'shop')])
  const { certFile, keyFile } = makePrivateAuthority(folder, 'oz.example.com')
  makePrograms()

  model = await startScriptedModel({
    handler: ({ body }) => {
      const isAsked = JSON.stringify(body).includes('make a change') && !JSON.stringify(body).includes('exit_code')
      return isAsked
        ? {
            toolCalls: [
              { name: 'run_command', arguments: { command: 'echo 1 > one.txt; git add . ; git commit -qm one' } },
            ],
          }
        : { text: 'Done.' }
    },
  })
  const providers = { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` }
  cp = await startControlPlane({ env: providers })
  env = {
    PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
    TMPDIR: process.env.TMPDIR,
    HOME: home,
    OZ_SERVER_URL: cp.url,
    OZ_API_KEY: cp.adminKey,
    OZ_DATA_DIR: join(folder, 'data'),
    OZ_LISTEN: '127.0.0.1:0',
    // Servers that a page starts are more of the same: one database, one master key.
    DATABASE_URL: cp.database.url,
    OZ_MASTER_KEY_FILE: join(cp.folder, 'shared-master.key'),
    OZ_BOOTSTRAP_API_KEY: cp.adminKey,
    CERT: certFile,
    KEY: keyFile,
    ...providers,
  }
  worker = await startWorkerProgram(folder, {
    workerId: 'build-1',
    env: { OZ_API_KEY: cp.adminKey, OZ_SERVER_URL: cp.url },
  })
  const config = { environment: { source_repos: [{ url: shop }] }, idle_timeout_minutes: 0 }
  runId = await cp.createRun({ prompt: 'make a change', config })
  await cp.waitFor(runId, 'SUCCEEDED', 60_000)
  const query = `run_id=${runId}&filepath=report.pdf`
  const artifact = await cp.request<{ artifact_uid: string }>('POST', `/api/v1/agent/artifacts?${query}`, {
    body: 'a report',
    headers: { 'content-type': 'application/octet-stream' },
  })
  artifactUid = artifact.body.artifact_uid
}

// One test and not one for each: between them the control plane's connections would look like something that was left open.
test('every command of the documents runs as it stands', { timeout: 600_000 }, async () => {
  const failures: string[] = []
  try {
    await start()
    for (const block of runnable) await runBlock(block).catch((error: Error) => failures.push(error.message))
  } finally {
    await worker?.[Symbol.asyncDispose]()
    await cp?.[Symbol.asyncDispose]()
    await model?.close()
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  expect(failures).toEqual([])
})

async function runBlock({ page, line, text }: Block): Promise<void> {
  const cwd = mkdtempSync(join(folder, 'cwd-'))
  for (const name of ['design.png', 'notes.txt']) writeFileSync(join(cwd, name), 'content')
  const script = await withRealNames(text)
  const args = ['--norc', '-eu', '-o', 'pipefail', '-c', script]
  await run('bash', args, { cwd, env: { ...env, RUN_ID: runId }, timeout: 110_000 }).catch(
    (error: { stdout: string; stderr: string }) => {
      throw new Error(`${page}:${line}\n${script}\n${error.stdout}\n${error.stderr}`)
    },
  )
}

/** The reader's own things. Everything else of a command stays as the page has it. */
async function withRealNames(text: string): Promise<string> {
  const environmentId = text.includes('ENVIRONMENT_ID') ? await makeEnvironment() : ''
  const queued = text.includes('run cancel') ? await cp.createRun({ config: { worker_host: 'nobody' } }) : ''
  return text
    .replaceAll(/https:\/\/oz\.example\.com(:4747)?|http:\/\/127\.0\.0\.1:4747/g, cp.url)
    .replaceAll(/(0\.0\.0\.0|127\.0\.0\.1):474[78]/g, '127.0.0.1:0')
    .replaceAll('http://models.internal:4748', cp.url)
    .replaceAll(/wk-…|your_team_api_key/g, cp.adminKey)
    .replaceAll(/postgres:\/\/\S+/g, cp.database.url)
    .replaceAll('ANTHROPIC_API_KEY=…', `ANTHROPIC_BASE_URL=${model.url}`)
    .replaceAll('--tls-cert cert.pem --tls-key key.pem', '--tls-cert "$CERT" --tls-key "$KEY"')
    .replaceAll(/https:\/\/github\.com\/acme\/shop\.git|(?<=--repo )acme\/shop/g, shop)
    .replaceAll('run cancel RUN_ID', `run cancel ${queued}`)
    .replaceAll(/(?<![$\w])RUN_ID\b/g, runId)
    .replaceAll('ENVIRONMENT_ID', environmentId)
    .replaceAll('ARTIFACT_UID', artifactUid)
}

async function makeEnvironment(): Promise<string> {
  const name = `sample-${crypto.randomUUID()}`
  const args = ['environment', 'create', '--name', name, '--variable', 'NODE_ENV=test', '--output-format', 'json']
  const { stdout } = await run(join(folder, 'bin', 'oz'), args, { env })
  return (JSON.parse(stdout) as { uid: string }).uid
}

/** `oz` and `oz-agent-worker` of this tree; `npx` runs them. What serves is ended as soon as it is ready, and has to end well. */
function makePrograms(): void {
  const node = process.execPath
  mkdirSync(join(folder, 'bin'))
  const script = (name: string, text: string) =>
    writeFileSync(join(folder, 'bin', name), `#!/bin/bash\n${text}\n`, { mode: 0o755 })
  const untilReady = `
log=$(mktemp)
until_ready() {
  "\${@:2}" >"$log" 2>&1 & pid=$!
  for _ in $(seq 600); do
    grep -q "$1" "$log" && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
  done
  if ! grep -q "$1" "$log"; then kill $pid; cat "$log" >&2; exit 1; fi
  kill -TERM $pid; wait $pid
}`
  script('npx', 'exec "$@"')
  script(
    'oz',
    `${untilReady}\ncase "$1" in up|server) until_ready "ready at\\|listens at" ${node} ${programs}oz.mjs "$@";; *) exec ${node} ${programs}oz.mjs "$@";; esac`,
  )
  script(
    'oz-agent-worker',
    `${untilReady}\nuntil_ready "Listening for tasks" ${node} ${programs}oz-agent-worker.mjs "$@"`,
  )
}
