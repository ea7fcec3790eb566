import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMasker, endProcessTree, findProcesses } from '@openoz/machine'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { testLimits } from '../../../../test/support/agent-channel-server.ts'
import { createRecordingSink } from '../../../../test/support/recording-sink.ts'
import { runCommand } from './run-command.ts'

let folder: string
let sink: ReturnType<typeof createRecordingSink>
const execution = crypto.randomUUID()
const marker = `OZ_EXECUTION_ID=${execution}`

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-run-'))
  mkdirSync(join(folder, 'work'))
  sink = createRecordingSink()
})
afterEach(async () => {
  await endProcessTree({ marker }, 0)
  rmSync(folder, { recursive: true, force: true })
})

function run(command: string, options: { timeout_ms?: number; signal?: AbortSignal } = {}) {
  const workspace = { folder, toolsFolder: join(folder, 'work'), repositories: [] }
  const keepOutput = async (file: string) => {
    copyFileSync(file, join(folder, 'kept'))
    return 'blob-1'
  }
  const call = {
    id: 'call-1',
    workspace,
    env: { PATH: process.env.PATH, HOME: folder, OZ_EXECUTION_ID: execution },
    limits: testLimits,
    sink,
    masker: createMasker(['hunter2']),
    keepOutput,
    signal: options.signal ?? new AbortController().signal,
  }
  return runCommand.run({ command, timeout_ms: options.timeout_ms }, call)
}

test('a command runs in the tools’ folder, without stdin, with stdout and stderr in order', async () => {
  const { result, isError } = await run('pwd; cat; echo err >&2; echo out; exit 3')
  expect(result).toEqual({ status: 'complete', exit_code: 3, output: `${folder}/work\nerr\nout\n` })
  expect(isError).toBe(undefined)
  expect(sink.terminal()).toBe(`${folder}/work\nerr\nout\n`)
})

test('a command that is killed by a signal says by which', async () => {
  expect((await run('kill -9 $$')).result).toMatchObject({ exit_code: 137, signal: 'SIGKILL' })
})

test('a command that takes too long is ended with everything that it started', async () => {
  const { result, isError } = await run('echo begun; sleep 1000 & setsid sleep 1000 & wait', { timeout_ms: 300 })
  expect(result).toMatchObject({ status: 'timed_out', output: 'begun\n' })
  expect(isError).toBe(true)
  await expect.poll(() => findProcesses({ marker })).toEqual([])
})

test('a stopped command has ended when the call rejects', async () => {
  const stop = new AbortController()
  const running = run('trap "" TERM; sleep 1000', { signal: stop.signal })
  setTimeout(() => stop.abort(new Error('stopped')), 200)
  await expect(running).rejects.toThrow('stopped')
  expect(await findProcesses({ marker })).toEqual([])
}, 20_000)

test('a daemon that holds the output neither hangs the tool nor dies of it', async () => {
  const start = performance.now()
  const { result } = await run('(while sleep 0.05; do echo tick || echo broken > broken; done) & echo started')
  expect(performance.now() - start).toBeLessThan(5_000)
  expect(result).toMatchObject({ exit_code: 0, note: expect.stringContaining('still runs in the background') })
  expect(result.output).toContain('started\n')
  expect((await findProcesses({ marker })).length).toBeGreaterThan(0)
})

test('NUL, invalid bytes and characters of four bytes come through as text', async () => {
  const { result } = await run("printf 'a\\0b\\377c😀'")
  expect(result.output).toBe('a\uFFFDb\uFFFDc😀')
})

test('secrets are masked in what the model, the viewers and the kept file get', async () => {
  const { result, blobId } = await run('echo hunter2; printf hun; sleep 0.1; echo ter2; yes abc | head -c 100000')
  expect(result.output).toMatch(/^\*\*\*\n\*\*\*\nabc/)
  expect(sink.terminal()).not.toContain('hunter2')
  expect(blobId).toBe('blob-1')
  expect(readFileSync(join(folder, 'kept'), 'utf8')).not.toContain('hunter2')
})

test('200 MB of output take little memory; model and viewers get a part, the file more of it', async () => {
  globalThis.gc?.()
  const before = process.memoryUsage().rss
  let peak = before
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss)
  }, 20)
  const { result } = await run('echo first; head -c 200000000 /dev/zero | tr "\\0" "x"; echo; echo last')
  clearInterval(timer)
  expect(peak - before).toBeLessThan(150_000_000)
  const output = String(result.output)
  expect(output.length).toBeLessThan(31_000)
  expect(output).toMatch(/^first\n/)
  expect(output).toMatch(/last\n$/)
  expect(output).toMatch(/\[… 1\d{8} characters are left out here …\]/)
  expect(sink.terminal().length).toBeLessThan(70_000)
  expect(readFileSync(join(folder, 'kept'), 'utf8')).toContain('[Cut here: the output is longer than')
})

test('arguments that no shell would take are refused in words', () => {
  expect(runCommand.input.safeParse({ command: 'a\0b' }).success).toBe(false)
  expect(runCommand.input.safeParse({ command: '' }).success).toBe(false)
  expect(runCommand.input.safeParse({ command: 'x'.repeat(100_001) }).success).toBe(false)
  expect(runCommand.input.safeParse({ command: 'x', timeout_ms: 0 }).success).toBe(false)
})
