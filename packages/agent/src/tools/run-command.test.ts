import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type CommandFixture, createCommandFixture } from '../../../../test/support/command-fixture.ts'
import { limitMemory, memoryHog } from '../../../../test/support/memory-limit.ts'
import { runCommand } from './run-command.ts'

let fixture: CommandFixture
beforeEach(() => {
  fixture = createCommandFixture()
})
afterEach(() => fixture[Symbol.asyncDispose]())

function run(command: string, { timeout_ms, signal }: { timeout_ms?: number; signal?: AbortSignal } = {}) {
  return fixture.call(runCommand, { command, timeout_ms }, signal)
}

test('a command runs in the tools’ folder, without stdin, with stdout and stderr in order', async () => {
  const { result, isError } = await run('pwd; cat; echo err >&2; echo out; exit 3')
  expect(result).toEqual({ status: 'complete', exit_code: 3, output: `${fixture.folder}/work\nerr\nout\n` })
  expect(isError).toBe(undefined)
  expect(fixture.sink.terminal()).toBe(`${fixture.folder}/work\nerr\nout\n`)
})

test('a command that is killed by a signal says by which', async () => {
  expect((await run('kill -9 $$')).result).toMatchObject({ exit_code: 137, signal: 'SIGKILL' })
})

test('a command that the kernel ended for memory says so, also when it was a part of the command', async (context) => {
  using limit = limitMemory(40_000_000)
  if (!limit) return context.skip('no control group can be made here')
  for (const command of [memoryHog(limit), `sh -c '${memoryHog(limit)}'; exit $?`]) {
    const { result } = await run(command)
    expect(result).toMatchObject({ exit_code: 137, error: expect.stringContaining('memory ran out') })
  }
})

test('a command that takes too long is ended with everything that it started', async () => {
  const { result, isError } = await run('echo begun; sleep 1000 & setsid sleep 1000 & wait', { timeout_ms: 300 })
  expect(result).toMatchObject({ status: 'timed_out', output: 'begun\n' })
  expect(isError).toBe(true)
  await expect.poll(fixture.processes).toEqual([])
})

test('a stopped command has ended when the call rejects', async () => {
  const stop = new AbortController()
  const running = run('trap "" TERM; sleep 1000', { signal: stop.signal })
  setTimeout(() => stop.abort(new Error('stopped')), 200)
  await expect(running).rejects.toThrow('stopped')
  expect(await fixture.processes()).toEqual([])
}, 20_000)

test('a daemon that holds the output neither hangs the tool nor dies of it', async () => {
  const start = performance.now()
  const { result } = await run('(while sleep 0.05; do echo tick || echo broken > broken; done) & echo started')
  expect(performance.now() - start).toBeLessThan(5_000)
  expect(result).toMatchObject({ exit_code: 0, note: expect.stringContaining('still runs in the background') })
  expect(result.output).toContain('started\n')
  expect((await fixture.processes()).length).toBeGreaterThan(0)
})

test('NUL, invalid bytes and characters of four bytes come through as text', async () => {
  const { result } = await run("printf 'a\\0b\\377c😀'")
  expect(result.output).toBe('a\uFFFDb\uFFFDc😀')
})

test('secrets are masked in what the model, the viewers and the kept file get', async () => {
  const { result, blobId } = await run('echo hunter2; printf hun; sleep 0.1; echo ter2; yes abc | head -c 100000')
  expect(result.output).toMatch(/^\*\*\*\n\*\*\*\nabc/)
  expect(fixture.sink.terminal()).not.toContain('hunter2')
  expect(blobId).toBe('blob-1')
  expect(readFileSync(fixture.keptFile, 'utf8')).not.toContain('hunter2')
})

test('200 MB of output take little memory; model and viewers get a part, the file all of it', async () => {
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
  expect(fixture.sink.terminal().length).toBeLessThan(70_000)
  expect(statSync(fixture.keptFile).size).toBe(200_000_000 + 'first\n\nlast\n'.length)
})

test('what has left its parents is ended too when a command is', async () => {
  const daemon = 'setsid -f sh -c "trap \'\' TERM; setsid -f sleep 1000; sleep 1000"'
  await run(`${daemon}; sleep 0.1; ${daemon}; sleep 1000`, { timeout_ms: 600 })
  expect(await fixture.processes()).toEqual([])
}, 20_000)

test('a command of an interrupted call that ignores SIGTERM is gone within a second and a half', async () => {
  const stop = new AbortController()
  const running = run('trap "" TERM; echo > ready; while :; do sleep 0.1; done', { signal: stop.signal })
  await expect.poll(() => existsSync(join(fixture.folder, 'work', 'ready'))).toBe(true)
  const start = performance.now()
  stop.abort(new Error('interrupted'))
  await expect(running).rejects.toThrow('interrupted')
  expect(performance.now() - start).toBeLessThan(1_500)
  expect(await fixture.processes()).toEqual([])
})

test('10 million lines come through with their first and last ones', async () => {
  const { result } = await run('seq 10000000')
  expect(result.output).toMatch(/^1\n2\n3\n[\s\S]*\n9999999\n10000000\n$/)
  expect(String(result.output).length).toBeLessThan(31_000)
  expect(statSync(fixture.keptFile).size).toBe(78_888_897)
}, 30_000)

test('an output beyond the limit of the control plane is kept up to there', async () => {
  await using small = createCommandFixture({ limits: { output_max_bytes: 1_000_000 } })
  await small.call(runCommand, { command: 'seq 1000000' })
  const kept = readFileSync(small.keptFile, 'utf8')
  expect(kept.length).toBeLessThanOrEqual(1_000_000)
  expect(kept).toMatch(/^1\n2\n[\s\S]*\[Cut here: the output is longer than 1000000 bytes\.\]\n$/)
})

test('binary output is text of the same length at most', async () => {
  const { result } = await run('head -c 5000 /dev/urandom')
  const output = String(result.output)
  expect(output.isWellFormed()).toBe(true)
  expect(output).not.toContain('\0')
  expect(output.length).toBeLessThanOrEqual(5_000)
})

test('a folder that is gone is said by its name', async () => {
  await run('cd ..; rmdir work')
  await expect(run('true')).rejects.toThrow(`${fixture.folder}/work, which commands start in, does not exist any more`)
})

test('arguments that no shell would take are refused in words', () => {
  expect(runCommand.input.safeParse({ command: 'a\0b' }).success).toBe(false)
  expect(runCommand.input.safeParse({ command: '' }).success).toBe(false)
  expect(runCommand.input.safeParse({ command: 'x'.repeat(100_001) }).success).toBe(false)
  expect(runCommand.input.safeParse({ command: 'x', timeout_ms: 0 }).success).toBe(false)
})
