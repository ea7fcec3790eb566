import { createHash } from 'node:crypto'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type CommandFixture, createCommandFixture } from '../../../../test/support/command-fixture.ts'
import { openPseudoTerminal } from './pseudo-terminal.ts'
import { readCommand } from './read-command.ts'
import { runCommand } from './run-command.ts'
import { stopCommand } from './stop-command.ts'
import { writeToCommand } from './write-to-command.ts'

let fixture: CommandFixture
beforeEach(() => {
  fixture = createCommandFixture()
})
afterEach(() => fixture[Symbol.asyncDispose]())

const run = (command: string, more: { background?: boolean; timeout_ms?: number } = {}) =>
  fixture.call(runCommand, { command, pty: true, ...more })
const write = (command_id: unknown, input: string) =>
  fixture.call(writeToCommand, { command_id: String(command_id), input, wait_ms: 10_000 })
const read = (command_id: unknown) => fixture.call(readCommand, { command_id: String(command_id), wait_ms: 10_000 })

test('a command has a terminal of its own, the environment of all commands, and ends with its exit code', async () => {
  const { result } = await run(
    'test -t 0 && test -t 1 && test -t 2 && stty size; echo $TERM $HOME; pwd; env | grep -c ^UNSET; echo "$OZ_EXECUTION_ID" | wc -c; exit 3',
  )
  const output = `30 120\nxterm-256color ${fixture.folder}\n${fixture.folder}/work\n0\n37\n`
  expect(result).toEqual({ status: 'complete', exit_code: 3, output })
  expect(fixture.sink.terminal()).toBe(output)
})

test('a program that asks is handed to the model once it is silent, and takes answers', async () => {
  const { result } = await run(
    'read -p "Name? " name; stty -echo; read -p "Password? " x; stty echo; echo "hello $name"',
  )
  expect(result).toEqual({
    status: 'running',
    command_id: expect.any(String),
    note: 'No output for 5 s: it may wait for input.',
    output: 'Name? ',
  })
  expect((await write(result.command_id, 'Ada\r')).result).toMatchObject({
    status: 'running',
    output: 'Ada\nPassword? ',
  })
  const { result: last } = await write(result.command_id, 'secret\r')
  expect(last).toMatchObject({ status: 'complete', exit_code: 0, output: expect.stringContaining('hello Ada\n') })
  expect(JSON.stringify(fixture.sink.events)).not.toContain('secret')
}, 20_000)

test('Ctrl-C and Ctrl-D do in a terminal what they do at a desk', async () => {
  const sleeping = await run('sleep 1000', { background: true })
  expect((await write(sleeping.result.command_id, '\x03')).result).toMatchObject({
    status: 'complete',
    signal: 'SIGINT',
  })
  const reading = await run('cat; echo "cat is done"', { background: true })
  const { result } = await fixture.call(writeToCommand, {
    command_id: String(reading.result.command_id),
    input: 'line\r',
    close: true,
    wait_ms: 10_000,
  })
  expect(result).toMatchObject({ output: expect.stringMatching(/line\nline\n/) })
})

test('colours do not hide a secret', async () => {
  const { result } = await run("printf 'hun\\033[1mter2 \\033[31mred\\033[0m\\n'; printf hun; sleep 0.1; echo ter2")
  expect(result.output).toBe('*** red\n***\n')
  expect(fixture.sink.terminal()).toBe('*** red\n***\n')
})

test('input that the program does not read stalls nobody', async () => {
  const { result } = await run('stty raw -echo; echo ready; sleep 1000', { background: true })
  const id = String(result.command_id)
  const input = 'x'.repeat(100_000)
  const start = performance.now()
  const answer = await fixture.call(writeToCommand, { command_id: id, input, wait_ms: 0 })
  expect(answer.result.note).toMatch(/^\d+ bytes of input wait for the command to read them\.$/)
  expect(performance.now() - start).toBeLessThan(1_000)
  expect((await fixture.call(stopCommand, { command_id: id })).result).toMatchObject({ status: 'complete' })
})

test('input of many lines reaches a program that reads slowly, whole', async () => {
  const lines = Array.from({ length: 2_000 }, (_, i) => `line ${i}`)
  const { result } = await run('stty -echo; echo ready; sleep 0.7; head -n 2000 | md5sum; echo done', {
    background: true,
  })
  let output = String((await write(result.command_id, `${lines.join('\n')}\n`)).result.output)
  while (!output.includes('done')) output += String((await read(result.command_id)).result.output)
  expect(output).toContain(
    createHash('md5')
      .update(`${lines.join('\n')}\n`)
      .digest('hex'),
  )
}, 20_000)

test('a program that lets go of its terminal is hung up on, as by any terminal that is closed', async () => {
  const { result } = await run('echo bye; exec </dev/null >/dev/null 2>&1; sleep 1000')
  expect(result).toMatchObject({ status: 'complete', exit_code: 129, signal: 'SIGHUP', output: 'bye\n' })
})

test('a million lines come through a terminal', async () => {
  const { result } = await run('seq 1000000')
  expect(result.output).toMatch(/^1\n2\n3\n[\s\S]*\n999999\n1000000\n$/)
}, 30_000)

test('a terminal whose time is over is ended with what it started', async () => {
  const { result } = await run('trap "" HUP; echo begun; setsid -f sleep 1000; sleep 1000', { timeout_ms: 400 })
  expect(result).toMatchObject({ status: 'timed_out', output: 'begun\n' })
  expect(await fixture.processes()).toEqual([])
})

test('the end of the session closes terminals, also of programs that ignore every polite signal', async () => {
  await run('trap "" HUP INT TERM; while :; do sleep 0.1; done', { background: true })
  await fixture.commands.endAll()
  expect(await fixture.processes()).toEqual([])
})

test('a command gets no hold of the terminals beside it', async () => {
  await run('sleep 1000', { background: true })
  const list = 'ls -l /proc/self/fd | grep -c ptmx'
  expect((await fixture.call(runCommand, { command: list })).result.output).toBe('0\n')
  expect((await run(list)).result.output).toBe('0\n')
})

test('where node-pty cannot be loaded the model is told what to do instead', async () => {
  const options = { command: 'true', folder: fixture.folder, env: {}, onOutput: () => {} }
  const load = () => import('@lydell/node-pty-of-no-platform' as string)
  await expect(openPseudoTerminal(options, load)).rejects.toThrow('Run the command without `pty`')
})
