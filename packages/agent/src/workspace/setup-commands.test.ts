import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endProcessTree, findProcesses } from '@openoz/machine'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createRecordingSink } from '../../../../test/support/recording-sink.ts'
import { runSetupCommands } from './setup-commands.ts'

let folder: string
const marker = `OZ_EXECUTION_ID=${crypto.randomUUID()}`
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-setup-'))
})
afterEach(async () => {
  await endProcessTree({ marker }, 0)
  rmSync(folder, { recursive: true, force: true })
})

function setup(commands: string[], { timeoutMs = 20_000, signal = new AbortController().signal } = {}) {
  const sink = createRecordingSink()
  const env = { PATH: process.env.PATH, HOME: folder, OZ_EXECUTION_ID: marker.split('=')[1] }
  return Object.assign(runSetupCommands({ commands, folder, env, timeoutMs, signal, sink }), { sink })
}

test('what one command exports is there for the next, each starts in the workspace, and tools inherit the result', async () => {
  const running = setup([
    'export GREETING="hello\nworld"; mkdir sub; cd sub; set_by_function() { echo "from a function"; }',
    'pwd; echo "$GREETING"; set_by_function; echo "CI=$CI"; export PATH="/opt/tool:$PATH"',
  ])
  const env = await running
  expect(running.sink.terminal()).toBe(`${folder}\nhello\nworld\nfrom a function\nCI=true\n`)
  expect(env.GREETING).toBe('hello\nworld')
  expect(env.PATH).toBe(`/opt/tool:${process.env.PATH}`)
  expect(env.CI).toBe(undefined)
  expect(Object.keys(env).filter((name) => name.startsWith('OZ_'))).toEqual(['OZ_EXECUTION_ID'])
})

test('commands find nothing on stdin', async () => {
  const running = setup(['cat; read line; echo "got:$line"', 'echo next'])
  await running
  expect(running.sink.terminal()).toBe('got:\nnext\n')
})

test('the first command that fails ends the setup', async () => {
  const running = setup(['true', 'echo oops >&2; false', 'touch never'])
  await expect(running).rejects.toMatchObject({
    code: 'setup_command_failed',
    details: { number: 2, command: 'echo oops >&2; false', exitCode: 1 },
  })
  expect(running.sink.terminal()).toBe('oops\n')
  expect(existsSync(join(folder, 'never'))).toBe(false)
  const steps = running.sink.events.flatMap((event) => (event.type === 'setup_step' ? [event.data.status] : []))
  expect(steps).toEqual(['started', 'completed', 'started', 'failed'])
})

test.each(['exit 0', 'exit 3', 'kill -9 $$', 'exec true'])(
  '`%s` ends the shell, which is told apart from a failure',
  async (command) => {
    await expect(setup([command])).rejects.toMatchObject({ code: 'setup_command_exited_shell' })
  },
)

test('a command that hangs is ended with everything that it started', async () => {
  const hanging = setup(['sleep 1000 & setsid sleep 1000 & sleep 1000'], { timeoutMs: 300 })
  await expect(hanging).rejects.toMatchObject({ code: 'setup_command_timeout', details: { timeout: '0.3 s' } })
  await expect.poll(() => findProcesses({ marker })).toEqual([])
})

test('a stopped run stops its setup', async () => {
  const stop = new AbortController()
  const running = setup(['sleep 1000'], { signal: stop.signal })
  setTimeout(() => stop.abort(new Error('stopped')), 100)
  await expect(running).rejects.toThrow('stopped')
  await expect.poll(() => findProcesses({ marker })).toEqual([])
})

test('a service that was started in the background neither hangs the setup nor ends with it', async () => {
  const env = await setup(['sleep 1000 &', 'echo ready'])
  expect(env.PATH).toBe(process.env.PATH)
  const commands = async () => (await findProcesses({ marker })).map(({ command }) => command)
  await expect.poll(commands).toEqual(['sleep'])
})

test('much output does not reach the viewers whole, and long commands are shortened', async () => {
  const running = setup([`head -c 3000000 /dev/zero | tr '\\0' x; echo; : ${'y'.repeat(500)}`])
  await running
  expect(running.sink.terminal().length).toBeLessThan(70_000)
  const [step] = running.sink.events
  expect(step?.type === 'setup_step' && step.data.title?.length).toBeLessThan(210)
})
