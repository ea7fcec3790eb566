import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type CommandFixture, createCommandFixture } from '../../../../test/support/command-fixture.ts'
import { readCommand } from './read-command.ts'
import { runCommand } from './run-command.ts'
import { stopCommand } from './stop-command.ts'
import { writeToCommand } from './write-to-command.ts'

let fixture: CommandFixture
beforeEach(() => {
  fixture = createCommandFixture()
})
afterEach(() => fixture[Symbol.asyncDispose]())

async function start(command: string, options: { timeout_ms?: number } = {}): Promise<string> {
  const { result } = await fixture.call(runCommand, { command, background: true, ...options })
  expect(result).toMatchObject({ status: 'running', command_id: expect.stringMatching(/^cmd-[0-9a-f]{6}$/) })
  return String(result.command_id)
}
const read = (command_id: string, wait_ms = 10_000) => fixture.call(readCommand, { command_id, wait_ms })
const write = (command_id: string, input: string, more: { close?: boolean; wait_ms?: number } = {}) =>
  fixture.call(writeToCommand, { command_id, input, wait_ms: 10_000, ...more })
const stop = (command_id: string) => fixture.call(stopCommand, { command_id })
const touch = (name: string) => writeFileSync(join(fixture.folder, 'work', name), '')
const waitUntil = (name: string) => `while [ ! -e ${name} ]; do sleep 0.02; done`

test('a command in the background is read piece by piece, and its end once', async () => {
  const { result } = await fixture.call(runCommand, {
    command: `echo one; ${waitUntil('go')}; echo two; ${waitUntil('end')}; echo three; exit 4`,
    background: true,
  })
  expect(result).toEqual({ status: 'running', command_id: expect.any(String), output: 'one\n' })
  const id = String(result.command_id)
  expect((await read(id, 0)).result).toEqual({ status: 'running', command_id: id, output: '' })
  touch('go')
  expect((await read(id)).result).toEqual({ status: 'running', command_id: id, output: 'two\n' })
  touch('end')
  await expect.poll(() => fixture.commands.find(id).end).toBeTruthy()
  expect((await read(id)).result).toEqual({ status: 'complete', command_id: id, exit_code: 4, output: 'three\n' })
  await expect(read(id)).rejects.toThrow(
    `${id} is over: ended with exit code 4. There are no commands in the background.`,
  )
  expect(fixture.sink.terminal()).toBe(`one\ntwo\nthree\n\n[${id}: ended with exit code 4.]\n`)
  const owners = fixture.sink.events.map(({ data }) => 'toolCallId' in data && data.toolCallId)
  expect(new Set(owners)).toEqual(new Set(['call-1']))
})

test('a command that ends at once says how, without an id', async () => {
  const { result } = await fixture.call(runCommand, { command: 'echo no such port; exit 1', background: true })
  expect(result).toEqual({ status: 'complete', exit_code: 1, output: 'no such port\n' })
})

test('a command in the background reads what is written, until its input is closed', async () => {
  const id = await start('while read -r line; do echo "got $line"; done; echo end of input')
  expect((await write(id, 'a\nb\n')).result).toEqual({ status: 'running', command_id: id, output: 'got a\ngot b\n' })
  const { result } = await write(id, 'c\n', { close: true })
  expect(result.output).toBe('got c\nend of input\n')
})

test('a command that has ended takes no input, and says how it ended', async () => {
  const id = await start(`${waitUntil('go')}; exit 2`)
  touch('go')
  await expect.poll(() => fixture.commands.find(id).end).toBeTruthy()
  expect((await write(id, 'hello?\n')).result).toMatchObject({ status: 'complete', exit_code: 2 })
})

test('a command that reads nothing neither blocks the tool nor takes memory without limit', async () => {
  const id = await start('sleep 1000')
  const input = 'x'.repeat(100_000)
  for (let i = 0; i < 5; i++) await write(id, input, { wait_ms: 0 })
  expect((await read(id, 0)).result.note).toMatch(/^\d+ bytes of input wait/)
  const flood = async () => {
    for (let i = 0; i < 12; i++) await write(id, input, { wait_ms: 0 })
  }
  await expect(flood()).rejects.toThrow(/does not read its input: \d+ bytes are waiting/)
  const closed = await start('exec <&-; echo closed; sleep 1000')
  await read(closed, 0)
  const again = async () => {
    for (;;) await write(closed, input, { wait_ms: 20 })
  }
  await expect(again()).rejects.toThrow('its stdin is closed')
})

test('stopping ends a command with its daemons, also when they ignore SIGTERM', async () => {
  const id = await start(
    'trap "echo bye; exit 9" TERM; setsid -f sleep 1000; setsid -f sh -c "sleep 1000"; while :; do sleep 0.05; done',
  )
  expect((await stop(id)).result).toMatchObject({
    status: 'complete',
    exit_code: 9,
    output: expect.stringContaining('bye\n'),
  })
  expect(await fixture.processes()).toEqual([])
  const stubborn = await start('trap "" TERM; while :; do sleep 0.1; done')
  expect((await stop(stubborn)).result).toMatchObject({ exit_code: 137, signal: 'SIGKILL' })
  expect(await fixture.processes()).toEqual([])
}, 20_000)

test('an unknown id is answered with those that exist', async () => {
  await expect(read('cmd-x')).rejects.toThrow('There is no command cmd-x. There are no commands in the background.')
  const id = await start('sleep 1000 # a long command')
  await expect(stop('cmd-x')).rejects.toThrow(
    `There is no command cmd-x. Commands: ${id} (running: sleep 1000 # a long command).`,
  )
})

test('a time limit of a command in the background ends it', async () => {
  const id = await start('echo begun; sleep 1000', { timeout_ms: 900 })
  await expect.poll(() => fixture.commands.find(id).end, { timeout: 5_000 }).toBeTruthy()
  const { result } = await read(id)
  expect(result).toMatchObject({ status: 'timed_out', error: expect.stringContaining('900 ms'), output: '' })
  expect(await fixture.processes()).toEqual([])
})

test('an interrupt stops the waiting and leaves the command; one at its start ends it', async () => {
  const id = await start(`${waitUntil('go')}; echo late; sleep 1000`)
  const stopWaiting = new AbortController()
  const waiting = fixture.call(readCommand, { command_id: id, wait_ms: 60_000 }, stopWaiting.signal)
  stopWaiting.abort(new Error('interrupted'))
  await expect(waiting).rejects.toThrow('interrupted')
  touch('go')
  expect((await read(id)).result).toMatchObject({ status: 'running', output: 'late\n' })
  await stop(id)

  const stopStart = new AbortController()
  const command = 'echo > begun; sleep 1000'
  const starting = fixture.call(runCommand, { command, background: true }, stopStart.signal)
  await expect.poll(() => existsSync(join(fixture.folder, 'work', 'begun'))).toBe(true)
  stopStart.abort(new Error('interrupted'))
  await expect(starting).rejects.toThrow('interrupted')
  expect(await fixture.processes()).toEqual([])
})

test('more than 20 at once are refused until one has ended', async () => {
  const ids = await Promise.all(Array.from({ length: 20 }, () => start('sleep 1000')))
  const more = () => fixture.call(runCommand, { command: 'sleep 1000', background: true })
  await expect(more()).rejects.toThrow(/^20 commands are running.*stop_command\. Commands: cmd-/)
  expect((await fixture.call(runCommand, { command: 'echo in front' })).result.output).toBe('in front\n')
  await stop(ids[3] ?? '')
  expect((await more()).result.status).toBe('running')
}, 20_000)

test('of commands that ended and were never read only the last 20 are kept', async () => {
  const ids = await Promise.all(Array.from({ length: 20 }, () => start(waitUntil('go'))))
  const hasEnded = (id = '') => fixture.commands.find(id).end !== undefined
  touch('go')
  await expect.poll(() => ids.every(hasEnded), { timeout: 10_000 }).toBe(true)
  const last = await start(waitUntil('end'))
  touch('end')
  await expect.poll(() => hasEnded(last)).toBe(true)
  const isForgotten = (id: string) =>
    read(id, 0).then(
      ({ result }) => result.status,
      (error: Error) => error.message,
    )
  const said = await Promise.all([last, ...ids].map(isForgotten))
  expect(said.filter((text) => text === 'complete').length).toBe(20)
  expect(said.filter((text) => String(text).includes('is over: ended with exit code 0.')).length).toBe(1)
  expect(said[0]).toBe('complete')
}, 30_000)

test('the end of the session ends all of them, and nothing starts after it', async () => {
  await start('trap "" TERM; while :; do sleep 0.1; done')
  await start('sleep 1000')
  const front = fixture.call(runCommand, { command: 'echo > begun; sleep 1000' })
  await expect.poll(() => existsSync(join(fixture.folder, 'work', 'begun'))).toBe(true)
  await fixture.commands.endAll()
  expect(await fixture.processes()).toEqual([])
  expect((await front).result).toMatchObject({ status: 'complete' })
  await expect(start('sleep 1000')).rejects.toThrow('The session is over')
  expect(await fixture.processes()).toEqual([])
  await fixture.commands.endAll()
}, 20_000)

test('long output between two reads is cut in the middle, and all of it kept at the end', async () => {
  const id = await start(
    `${waitUntil('go')}; echo hunter2; seq 100000; printf hun; sleep 0.1; echo ter2; ${waitUntil('end')}`,
  )
  touch('go')
  let output = ''
  await expect
    .poll(async () => {
      output += (await read(id)).result.output
      return output
    })
    .toMatch(/^\*\*\*\n1\n2\n[\s\S]*\[… \d+ characters are left out here …\][\s\S]*100000\n\*\*\*\n$/)
  touch('end')
  await expect.poll(() => fixture.commands.find(id).end).toBeTruthy()
  const { result, blobId } = await read(id)
  expect(result.status).toBe('complete')
  expect(blobId).toBe('blob-1')
  const kept = readFileSync(fixture.keptFile, 'utf8')
  expect(kept).toMatch(/^\*\*\*\n1\n[\s\S]*\n100000\n\*\*\*\n$/)
  expect(kept.length).toBeGreaterThan(500_000)
  expect(fixture.sink.terminal()).not.toContain('hun')
  expect(fixture.sink.terminal().length).toBeLessThan(70_000)
}, 20_000)

test('what a command had said that nobody read is kept when it ends with the session, and where is said', async () => {
  await start('seq 20000; sleep 1000')
  await expect.poll(() => fixture.sink.terminal()).toContain('\n10000\n')
  await expect.poll(() => fixture.sink.terminal().length).toBeGreaterThan(65_536)
  await fixture.commands.endAll()
  expect(readFileSync(fixture.keptFile, 'utf8')).toMatch(/^1\n2\n[\s\S]*\n20000\n$/)
  expect(fixture.sink.terminal()).toMatch(
    /\[cmd-\w+: ended by SIGTERM\.\]\n\n\[cmd-\w+: all of its output is kept as blob blob-1\.\]\n$/,
  )
})

test('commands that are ended before the agent leaves can still be read, should it go on after all', async () => {
  const id = await start('echo begun; sleep 1000')
  await fixture.commands.endKept()
  expect(await fixture.processes()).toEqual([])
  expect((await read(id)).result).toMatchObject({ status: 'complete', signal: 'SIGTERM' })
  expect(await start('sleep 1000')).toMatch(/^cmd-/)
})
