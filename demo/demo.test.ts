import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const run = promisify(execFile)
const program = fileURLToPath(new URL('./demo.ts', import.meta.url))

/** Its own temporary folder and home; no model provider of whoever runs the tests. */
async function makeScene() {
  const folder = await mkdtemp(join(tmpdir(), 'oz-demo-test-'))
  await mkdir(join(folder, 'home'))
  const temporary = join(folder, 'tmp')
  // As root, tasks and the database are other users, who have to be able to pass through.
  await run('chmod', ['711', folder])
  await mkdir(temporary, { mode: 0o711 })
  const env = { PATH: process.env.PATH, HOME: join(folder, 'home'), TMPDIR: temporary }
  return {
    folder,
    temporary,
    env,
    start: (args: string[], more: NodeJS.ProcessEnv = {}) => {
      const child = spawn(process.execPath, [program, ...args], {
        env: { ...env, ...more },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      let stdout = ''
      let stderr = ''
      child.stdout.setEncoding('utf8').on('data', (text) => {
        stdout += text
      })
      child.stderr.setEncoding('utf8').on('data', (text) => {
        stderr += text
      })
      const ended = once(child, 'close').then(([exitCode]) => ({ exitCode: exitCode as number | null, stdout, stderr }))
      const said = (text: string) =>
        new Promise<void>((resolve) => {
          const look = () => {
            if (`${stdout}${stderr}`.includes(text)) resolve()
          }
          child.stdout.on('data', look)
          child.stderr.on('data', look)
        })
      return { child, ended, said }
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true, maxRetries: 5 }),
  }
}

/** Of processes that are alive and have this text in their command line. */
function commandLinesWith(text: string): string[] {
  if (!existsSync('/proc')) return []
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      } catch {
        return ''
      }
    })
    .filter((line) => line.includes(text))
}

test('the demo repairs the sample project for real, hands it over as a branch, and leaves nothing else behind', async () => {
  await using scene = await makeScene()
  const { exitCode, stdout, stderr } = await scene.start(['--output-format', 'json']).ended
  expect(exitCode, stderr).toBe(0)
  const result = JSON.parse(stdout.trim().split('\n').at(-1) ?? '')
  expect(result).toMatchObject({ type: 'demo_result', state: 'SUCCEEDED', test_command: 'node --test' })
  expect(result.branch).toBe(`oz/${result.run_id}`)
  for (const part of [
    'No real model is connected',
    '$ node --test',
    '+  const leftOver',
    'tokens:',
    'hello',
    'npm start',
  ]) {
    expect(stderr).toContain(part)
  }

  const { repository, branch, test_command: command } = result
  const [file = '', ...args] = command.split(' ')
  await expect(run(file, args, { cwd: repository })).rejects.toMatchObject({ code: 1 })
  await run('git', ['-C', repository, 'switch', '--quiet', branch])
  await run(file, args, { cwd: repository })
  expect((await run('git', ['-C', repository, 'status', '--porcelain'])).stdout).toBe('')

  expect(readdirSync(scene.temporary)).toEqual([expect.stringMatching(/^openoz-sample-/)])
  expect(readdirSync(scene.env.HOME)).toEqual([])
  expect(commandLinesWith(scene.folder)).toEqual([])
})

/** Runs a task with the scripted model, and answers its result and what was shown. */
async function perform(scene: Awaited<ReturnType<typeof makeScene>>, task: string) {
  const { exitCode, stdout, stderr } = await scene.start(['--task', task, '--output-format', 'json']).ended
  expect(exitCode, stderr).toBe(0)
  const result = JSON.parse(stdout.trim().split('\n').at(-1) ?? '')
  expect(result).toMatchObject({ type: 'demo_result', state: 'SUCCEEDED' })
  expect(commandLinesWith(scene.folder)).toEqual([])
  return { ...result, shown: stderr } as { repository: string; branch: string; test_command: string; shown: string }
}

async function testOn({
  repository,
  branch,
  test_command,
}: {
  repository: string
  branch: string
  test_command: string
}) {
  await run('git', ['-C', repository, 'switch', '--quiet', branch])
  const [file = '', ...args] = test_command.split(' ')
  return (await run(file, args, { cwd: repository })).stdout
}

test('task refactor: several files change at once, and the programs print what they printed', async () => {
  await using scene = await makeScene()
  const result = await perform(scene, 'refactor')
  expect(result.shown).toContain('Plan, 4 of 4 done')
  const bill = ['src/main.js', '90.00', 'Ada', 'Grace']
  const before = (await run(process.execPath, bill, { cwd: result.repository })).stdout
  expect(await testOn(result)).toContain('pass 2')
  expect((await run(process.execPath, bill, { cwd: result.repository })).stdout).toBe(before)
  const changed = await run('git', ['-C', result.repository, 'diff', '--name-only', 'main', result.branch])
  expect(changed.stdout.trim().split('\n')).toEqual([
    'src/bill-text.js',
    'src/interactive.js',
    'src/main.js',
    'test/bill-text.test.js',
  ])
})

test('task server: a program in the background is written to, read and stopped', async () => {
  await using scene = await makeScene()
  const result = await perform(scene, 'server')
  expect(result).toMatchObject({ branch: null, test_command: null })
  for (const part of ['runs on', '│ Linus  33.33', 'stopped', 'They add up to 99.99', 'It changed nothing'])
    expect(result.shown).toContain(part)
})

test('task question: the agent asks, is answered in a new execution, and does what it was told', async () => {
  await using scene = await makeScene()
  const result = await perform(scene, 'question')
  for (const part of ['BLOCKED  The agent asks:', '? 2. to the last people who pay', 'Owner, turn 2', 'as you said'])
    expect(result.shown).toContain(part)
  expect(await testOn(result)).toContain('fail 0')
  const { stdout } = await run(process.execPath, ['src/main.js', '100', 'Ada', 'Bob', 'Eve'], {
    cwd: result.repository,
  })
  expect(stdout).toContain('Eve  33.34')
})

test('a task that there is not, and one for another repository, are refused with the names', async () => {
  await using scene = await makeScene()
  const unknown = await scene.start(['--task', 'dance']).ended
  expect(unknown).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('fix, refactor, server, question') })
  expect((await scene.start(['--task', 'fix', '--repo', '.', '--prompt', 'x']).ended).exitCode).toBe(2)
  expect((await scene.start(['--help']).ended).stdout).toContain('question  a question that the agent asks')
})

test('Ctrl-C in the middle ends everything that the demo started', async () => {
  await using scene = await makeScene()
  const demo = scene.start([])
  await demo.said('INPROGRESS')
  demo.child.kill('SIGINT')
  expect((await demo.ended).exitCode).toBe(130)
  expect(readdirSync(scene.temporary)).toEqual([expect.stringMatching(/^openoz-sample-/)])
  expect(commandLinesWith(scene.folder)).toEqual([])
})

test('one’s own repository gets the result as a branch; its working tree is left as it was', async () => {
  await using scene = await makeScene()
  const clone = join(scene.folder, 'mine')
  await cp(fileURLToPath(new URL('./sample-project/', import.meta.url)), clone, { recursive: true })
  const git = async (...args: string[]) => (await run('git', ['-C', clone, ...args])).stdout.trim()
  await git('init', '--quiet', '--initial-branch=trunk')
  await git('add', '--all')
  await git('-c', 'user.name=Me', '-c', 'user.email=me@example.invalid', 'commit', '--quiet', '--message', 'mine')
  await writeFile(join(clone, 'notes.txt'), 'not yet committed\n')
  const before = [
    await git('status', '--porcelain'),
    await git('rev-parse', 'HEAD'),
    await git('branch', '--show-current'),
  ]

  const model = spawn(process.execPath, [fileURLToPath(new URL('./scripted-model.ts', import.meta.url))])
  const { url } = JSON.parse(String(await once(model.stdout, 'data')))
  const args = ['--repo', clone, '--prompt', 'Make the failing test pass.', '--output-format', 'json']
  const { exitCode, stdout, stderr } = await scene.start(args, { OPENAI_BASE_URL: url }).ended
  model.stdin.end()
  await once(model, 'exit')

  expect(exitCode, stderr).toBe(0)
  expect(stderr).toContain('A real model thinks (OPENAI_BASE_URL)')
  const { branch, repository } = JSON.parse(stdout)
  expect(repository).toBe(clone)
  expect(await git('show', `${branch}:src/split-bill.js`)).toContain('leftOver')
  expect([
    await git('status', '--porcelain'),
    await git('rev-parse', 'HEAD'),
    await git('branch', '--show-current'),
  ]).toEqual(before)
  expect(readdirSync(scene.temporary)).toEqual([])
})

test('one’s own repository needs a real model, and the names of the variables are said', async () => {
  await using scene = await makeScene()
  const { exitCode, stderr } = await scene.start(['--repo', scene.folder, '--prompt', 'x']).ended
  expect(exitCode).toBe(2)
  for (const name of ['ANTHROPIC_API_KEY', 'OPENAI_API_KEY', 'OLLAMA_HOST']) expect(stderr).toContain(name)
})

test('a folder that is no repository is refused before anything is started', async () => {
  await using scene = await makeScene()
  const { exitCode, stderr } = await scene.start(['--repo', scene.temporary, '--prompt', 'x'], {
    OPENAI_BASE_URL: 'http://127.0.0.1:9',
  }).ended
  expect(exitCode).toBe(1)
  expect(stderr).toContain('clone_missing')
  expect(readdirSync(scene.temporary)).toEqual([])
})
