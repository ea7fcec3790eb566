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
