import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkoutRun, openConnection } from '@openoz/cli'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createContainer, removeContainer } from '../../packages/worker/src/engine/containers.ts'
import { makeRepository } from '../support/agent-fixture.ts'
import { makeGitImage, startContainerGit } from '../support/container-git.ts'
import { type ControlPlane, startControlPlane } from '../support/control-plane.ts'
import { endOf, startModelOf, untilNothingIsLeft } from '../support/docker-runs.ts'
import { type DockerWorkerOptions, startDockerWorker } from '../support/docker-worker.ts'
import type { ScriptedStep } from '../support/scripted-model.ts'
import { imageName, isImageKept, openTestEngine, prepareImages } from '../support/test-images.ts'

/**
 * One run as people start them, in every kind of image: a repository is cloned over HTTP, searched, read, edited, tried by a command where there is a
 * shell, and comes back as a branch. Images of an older and a newer glibc take minutes to make: they are tried where they were made before, or with
 * TEST_ALL_IMAGES.
 */
const engineOfAll = () => inject('dockerEngine') ?? { socket: '' }
const folder = mkdtempSync(join(tmpdir(), 'oz-samples-'))
const ownGit = 'oz-test/own-git:1'
const somebody = 'oz-test/somebody:1'
/** One of them takes some seconds, and the first one on an engine puts 150 MB onto it. */
const patienceMs = 180_000
const prompt = 'Make the sum right.'
let git: Awaited<ReturnType<typeof startContainerGit>>
let source: string

beforeAll(async () => {
  if (!inject('dockerEngine')) return
  const root = join(folder, 'served')
  mkdirSync(root)
  source = makeRepository(join(root, 'sums'), { 'sum.txt': 'sum=3\n', 'docs/how.md': 'One and two and one.\n' })
  git = await startContainerGit(engineOfAll(), { root, port: 4792, agentBundle: inject('agentBundle') })
  await prepareImages(engineOfAll(), ['debian', 'distroless'])
  await makeGitImage(engineOfAll(), ownGit)
  await makeSomebody()
}, 180_000)

afterAll(async () => {
  await git?.[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

/** Whose user has no name, no home, and nothing but its number. */
async function makeSomebody(): Promise<void> {
  await using engine = openTestEngine(engineOfAll())
  const { Id: base } = await createContainer(
    engine,
    { Image: imageName('musl'), Cmd: ['/none'] },
    { name: 'oz-test-somebody' },
  )
  const query = { container: base, repo: 'oz-test/somebody', tag: '1', changes: 'USER 12345' }
  await engine.json('POST', '/commit', { query })
  await removeContainer(engine, base)
}

interface Sample {
  image: string
  worker?: DockerWorkerOptions
  /** What is run once the sum is right; its output begins with the names of all variables. */
  command?: string
}

/** The run, what its tools answered, and its branch in a clone. */
async function sampleRun({ image, worker: options, command = 'cat sum.txt' }: Sample) {
  const steps: ScriptedStep[] = [
    { toolCalls: [{ name: 'grep', arguments: { queries: ['sum='] } }] },
    { toolCalls: [{ name: 'file_glob', arguments: { patterns: ['**/*.md'] } }] },
    { toolCalls: [{ name: 'read_files', arguments: { files: [{ path: 'docs/how.md' }] } }] },
    { toolCalls: [{ name: 'edit_files', arguments: { edits } }] },
    { toolCalls: [{ name: 'run_command', arguments: { command: `env; ${command}` } }] },
    { text: 'The sum is four.' },
  ]
  await using model = await startModelOf({ [prompt]: steps })
  await using cp = await startControlPlane({ env: model.env })
  await using _worker = await startDockerWorker(cp, options)
  const runId = await cp.createRun({
    prompt,
    config: {
      ...{ worker_host: 'w1', idle_timeout_minutes: 0 },
      environment: { docker_image: image, source_repos: [{ url: git.url('sums') }] },
    },
    retry: { max_attempts: 1 },
  })
  const end = await endOf(cp, runId, 120_000)
  expect(end).toMatchObject({ state: 'SUCCEEDED', message: expect.stringContaining('The sum is four.') })
  const delivered = await checkOut(cp, runId)
  await untilNothingIsLeft(engineOfAll(), [runId])
  return { answers: answersIn(model.requests.at(-1)?.body), ...delivered }
}

const edits = [{ type: 'replace', path: 'sum.txt', old_text: 'sum=3', new_text: 'sum=4' }]

/** Of the tools, in order. */
function answersIn(body: { messages: { role: string; content: unknown }[] }): string[] {
  return body.messages.filter(({ role }) => role === 'tool').map(({ content }) => JSON.stringify(content))
}

async function checkOut(cp: ControlPlane, runId: string) {
  const clone = join(folder, `clone-${runId}`)
  const say = (...args: string[]) => execFileSync('git', ['-C', clone, ...args], { encoding: 'utf8' })
  execFileSync('git', ['clone', '--quiet', source, clone])
  await using connection = openConnection({ serverUrl: cp.url, apiKey: cp.adminKey, env: {} })
  const { branch, commits, uncommitted } = await checkoutRun({ connection, runId, repo: clone })
  const text = say('show', `${branch}:sum.txt`)
  return { branch, commits, uncommitted, text, subjects: say('log', '--format=%s', `main..${branch}`) }
}

/** Names of ours, of the programs that the agent is made of, and whatever leads into its folder. */
function expectNothingOfOurs(said: string | undefined): void {
  expect(said).toContain('PATH=')
  expect(said).not.toMatch(/LD_LIBRARY_PATH|LD_PRELOAD|NODE_|GIT_EXEC_PATH|GIT_TEMPLATE_DIR|SSL_CERT|\/agent\b/)
  expect(said).not.toMatch(/_TOKEN|API_KEY|\b(et|wk)-\w/)
}

const found = (answers: string[]) => {
  expect(answers[0]).toContain('sum=3')
  expect(answers[1]).toContain('docs/how.md')
  expect(answers[2]).toContain('One and two and one.')
}

test.each<[string, Sample]>([
  ['of Debian', { image: imageName('debian') }],
  ['with musl', { image: imageName('musl') }],
  [
    'whose root cannot be written to',
    {
      image: imageName('musl'),
      worker: { docker: { read_only_root: true } },
      command: 'cat sum.txt; touch /etc/x || echo refused',
    },
  ],
  ['whose user is a number without a home', { image: somebody, command: 'cat sum.txt; id -u; touch /nowhere' }],
])(
  'a run in an image %s clones, finds, edits, runs a command, and delivers a branch',
  { timeout: patienceMs },
  async (name, sample) => {
    const { answers, ...delivered } = await sampleRun(sample)
    found(answers)
    expect(answers[4]).toContain('sum=4')
    expectNothingOfOurs(answers[4])
    if (sample.worker) expect(answers[4]).toMatch(/Read-only file system.*refused/s)
    if (sample.image === somebody) expect(answers[4]).toMatch(/12345.*Permission denied/s)
    expect(delivered, name).toMatchObject({ commits: 0, uncommitted: true, text: 'sum=4\n' })
  },
)

test.each<[string, string]>([
  ['with glibc and no shell, as distroless ones are', imageName('distroless')],
  ['of one static program', imageName('static')],
])(
  'a run in an image %s does the same, and is told why it cannot run commands',
  { timeout: patienceMs },
  async (_, image) => {
    const { answers, ...delivered } = await sampleRun({ image })
    found(answers)
    expect(answers[4]).toContain('There is no shell here')
    expect(delivered).toMatchObject({ commits: 0, uncommitted: true, text: 'sum=4\n' })
  },
)

test('in an image with a git of its own the agent commits, and the branch has the commit', {
  timeout: patienceMs,
}, async () => {
  const command = 'git commit --quiet --all --message "Make it four" && git log --format=%s && cat sum.txt'
  const { answers, ...delivered } = await sampleRun({ image: ownGit, command })
  found(answers)
  expect(answers[4]).toContain('Make it four')
  expectNothingOfOurs(answers[4])
  expect(delivered).toMatchObject({ commits: 1, uncommitted: false, text: 'sum=4\n', subjects: 'Make it four\n' })
})

for (const image of ['bullseye', 'trixie'] as const)
  test(`a run in an image with the C library of ${image}`, { timeout: 400_000 }, async (context) => {
    if (!process.env.TEST_ALL_IMAGES && !isImageKept(image)) {
      console.error(`NOT TESTED: ${image}: making it takes minutes; TEST_ALL_IMAGES does it`)
      return context.skip('it takes minutes to make')
    }
    await prepareImages(engineOfAll(), [image])
    const { answers, ...delivered } = await sampleRun({ image: imageName(image) })
    found(answers)
    expect(answers[4]).toContain('sum=4')
    expectNothingOfOurs(answers[4])
    expect(delivered).toMatchObject({ uncommitted: true, text: 'sum=4\n' })
  })
