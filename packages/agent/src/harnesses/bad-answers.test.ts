import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { modelAccesses, startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import type { ModelRequest, ScriptedStep } from '../../../../test/support/scripted-model.ts'

const never = () => new AbortController().signal
/** One pixel. */
const picture = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
const run = (command: string, id?: string) => ({ id, name: 'run_command', arguments: { command } })

test.each(modelAccesses)('calls that make no sense become results that the model reads ($wire)', async (access) => {
  const toolCalls = [
    { name: 'no_such_tool', arguments: {} },
    { name: 'run_command', arguments: { cmd: 'x' } },
    { name: 'run_command', arguments: '{"command": "x' },
    { name: 'edit_files', arguments: { edits: [{ type: 'delete', path: 'absent' }] } },
  ]
  await using oz = await startHarnessFixture({ access, steps: [{ toolCalls }, { text: 'Sorry.' }] })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  const body = JSON.stringify(oz.model.requests[1]?.body)
  expect(body).toContain('There is no tool no_such_tool')
  expect(body).toContain('The arguments do not fit')
  expect(body).toContain('absent')
  expect(oz.eventsOf('tool_call_update').map(({ status }) => status)).toEqual(Array(4).fill('failed'))
})

test('40 calls at once are all done, in order, and each has its result', async () => {
  const numbers = Array.from({ length: 40 }, (_, index) => index)
  const toolCalls = numbers.map((number) => run(`echo ${number} >> log`, `call_${number}`))
  await using oz = await startHarnessFixture({ steps: [{ toolCalls }, { text: 'Done.' }] })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  expect(readFileSync(join(oz.folder, 'log'), 'utf8')).toBe(numbers.map((number) => `${number}\n`).join(''))
  const results = oz.model.requests[1]?.body.messages.filter(({ role }: { role: string }) => role === 'tool')
  expect(results.map((message: { tool_call_id: string }) => message.tool_call_id)).toEqual(
    toolCalls.map(({ id }) => id),
  )
})

test('calls that only look run at the same time; what changes something waits for them', async () => {
  const grep = (text: string) => ({ name: 'grep', arguments: { queries: [text], path: '.' } })
  const toolCalls = [run('echo needle > hay'), ...Array.from({ length: 20 }, () => grep('needle')), run('rm hay')]
  await using oz = await startHarnessFixture({ steps: [{ toolCalls }, { text: 'Done.' }] })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  const results = oz.model.requests[1]?.body.messages.filter(({ role }: { role: string }) => role === 'tool')
  expect(results.filter(({ content }: { content: string }) => content.includes('hay')).length).toBe(20)
  let running = 0
  let most = 0
  for (const { type } of oz.events) {
    if (type === 'tool_call') running++
    if (type === 'tool_call_update') running--
    most = Math.max(most, running)
  }
  expect(most).toBe(8)
})

test('arguments of a megabyte are not shown to the model again when no tool takes them', async () => {
  const long = 'x'.repeat(1024 * 1024)
  const toolCalls = [
    { name: 'no_such_tool', arguments: { text: long } },
    { name: 'run_command', arguments: { [long]: 1, command: 5 } },
    { name: 'run_command', arguments: `{"command": "${long}` },
    { name: 'y'.repeat(2_000), arguments: {} },
  ]
  await using oz = await startHarnessFixture({ steps: [{ toolCalls }, { text: 'Sorry.' }] })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  const { messages } = oz.model.requests[1]?.body ?? {}
  expect(JSON.stringify(messages.slice(1)).length).toBeLessThan(20_000)
  expect(JSON.stringify(messages.slice(1)).replaceAll(/x{50,}/g, 'xx')).toContain('1048589 characters')
})

test('calls that have no id, or the id of another one, get one of their own', async () => {
  const twice = { toolCalls: [run('echo a', 'call_0'), run('echo b', 'call_0')] }
  await using oz = await startHarnessFixture({ steps: [twice, twice, { text: 'Done.' }] })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  const ids = oz.eventsOf('tool_call').map(({ toolCallId }) => toolCallId)
  expect(new Set(ids).size).toBe(4)
  const asked = oz.model.requests[2]?.body.messages.flatMap(({ tool_calls = [] }: { tool_calls?: { id: string }[] }) =>
    tool_calls.map(({ id }) => id),
  )
  expect(asked).toEqual(ids)
})

test('a turn that goes on and on ends at its limit of steps', async () => {
  await using oz = await startHarnessFixture({
    handler: ({ number }) => ({ toolCalls: [run(`echo ${number}`)] }),
    limits: { max_steps: 3 },
  })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({
    outcome: 'FAILED',
    errorCode: 'turn_limit_reached',
  })
  expect(oz.model.requests.length).toBe(3)
})

test('a turn that writes too much ends at its limit of output', async () => {
  const step = { toolCalls: [run('true')], usage: { output: 400 } }
  await using oz = await startHarnessFixture({ handler: () => step, limits: { max_turn_output_tokens: 1_000 } })
  const session = await oz.open()
  const result = await session.prompt(turn('go'), never())
  expect(result).toMatchObject({ outcome: 'FAILED', errorCode: 'turn_output_limit_reached' })
  expect(oz.model.requests.length).toBe(3)
})

test('a turn that takes too long ends at its limit of time, and what runs is stopped', async () => {
  await using oz = await startHarnessFixture({
    steps: [{ toolCalls: [run('sleep 30')] }, { text: 'Late.' }],
    limits: { max_turn_ms: 400 },
  })
  const session = await oz.open()
  const start = performance.now()
  expect(await session.prompt(turn('go'), never())).toMatchObject({
    outcome: 'FAILED',
    errorCode: 'turn_time_limit_reached',
  })
  expect(performance.now() - start).toBeLessThan(5_000)
  // The next turn has its own time.
  expect(await session.prompt(turn('again'), never())).toMatchObject({ outcome: 'SUCCEEDED', message: 'Late.' })
})

test('a model that makes the same failing call again and again is told once, and then stopped', async () => {
  await using oz = await startHarnessFixture({ handler: () => ({ toolCalls: [run('exit 3'), run('cat absent')] }) })
  const session = await oz.open()
  const result = await session.prompt(turn('go'), never())
  expect(result).toMatchObject({
    outcome: 'FAILED',
    errorCode: 'turn_repeats_itself',
    message: expect.stringContaining('5 times'),
  })
  const told = oz.model.requests.map(({ body }) => JSON.stringify(body).split('you have made the same call').length - 1)
  expect(told).toEqual([0, 0, 0, 1, 1])
})

test('a plan that is written again and again does not hide a call that fails each time', async () => {
  const todos = (number: number) => [{ title: `try ${number}`, status: 'in_progress' }]
  const handler = ({ number }: { number: number }) => ({
    toolCalls: [run('exit 3'), { name: 'todo', arguments: { todos: todos(number) } }],
  })
  await using oz = await startHarnessFixture({ handler })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({ errorCode: 'turn_repeats_itself' })
  expect(oz.eventsOf('plan').length).toBe(5)
})

test('texts with half a character in them are made whole before they are kept', async () => {
  const broken = `{"command": "${'x'.repeat(50)}😀${'y'.repeat(119)}`
  const toolCalls = [
    run('echo \ud83d'),
    { name: 'run_command', arguments: broken },
    { name: 'no_such_tool', arguments: { text: 'z'.repeat(491) + '😀'.repeat(2_000), '\udc00': [{ deep: '\ud83d' }] } },
    { name: 'run_command', arguments: { command: 5, ['😀'.repeat(2_000)]: 1 } },
  ]
  await using oz = await startHarnessFixture({ steps: [{ text: 'half \ud83d', toolCalls }, { text: 'Sorry.' }] })
  const session = await oz.open()
  expect(await session.prompt(turn('go \ud83d'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  // A whole pair is not escaped.
  expect(JSON.stringify(oz.model.requests[1]?.body)).not.toMatch(/\\ud[89a-f]/i)
})

test('a request that is refused with pictures in it is made without them, and so are those after it', async () => {
  const handler = ({ body, number }: ModelRequest): ScriptedStep => {
    if (number === 0) return { toolCalls: [{ name: 'read_files', arguments: { files: [{ path: 'dot.png' }] } }] }
    const hasPicture = JSON.stringify(body).includes('image_url')
    return hasPicture ? { status: 400, body: { error: { message: 'cannot decode' } } } : { text: 'No dot.' }
  }
  await using oz = await startHarnessFixture({ access: { vision: true }, handler })
  writeFileSync(join(oz.folder, 'dot.png'), Buffer.from(picture, 'base64'))
  const session = await oz.open()
  expect(await session.prompt(turn('look'), never())).toMatchObject({ outcome: 'SUCCEEDED', message: 'No dot.' })
  expect(oz.model.requests.length).toBe(3)
  expect(oz.eventsOf('notice').map(({ text }) => text)).toEqual([expect.stringContaining('without them')])
  expect(await session.prompt(turn('go on'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  expect(oz.model.requests.length).toBe(4)
})

test('a request without pictures that is refused is not made again', async () => {
  await using oz = await startHarnessFixture({
    access: { vision: true },
    handler: () => ({ status: 400, body: { error: { message: 'cannot decode' } } }),
  })
  const session = await oz.open()
  expect(await session.prompt(turn('look'), never())).toMatchObject({ errorCode: 'model_request_rejected' })
  expect(oz.model.requests.length).toBe(1)
})

test('all questions of an answer reach the person, and what stands behind the first one waits', async () => {
  const toolCalls = [
    run('echo before > before'),
    { id: 'a', name: 'ask', arguments: { question: 'Which database?' } },
    run('echo after > after', 'behind'),
    { name: 'grep', arguments: { queries: ['x'], path: '.' } },
    { id: 'b', name: 'ask', arguments: { question: 'Which port?' } },
  ]
  await using oz = await startHarnessFixture({ steps: [{ toolCalls }, { text: 'Thanks.' }] })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({
    outcome: 'BLOCKED',
    message: 'Which database?\n\nWhich port?',
  })
  expect(readdirSync(oz.folder)).toEqual(['before'])
  expect(oz.eventsOf('tool_call').map(({ tool }) => tool)).toEqual(['run_command', 'ask', 'ask'])
  expect(await session.prompt(turn('5432'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  const { messages } = oz.model.requests[1]?.body ?? {}
  const result = messages.find(({ tool_call_id: id }: { tool_call_id?: string }) => id === 'behind')
  expect(result.content).toContain('Not run: a question is open')
})

test('a question that was refused stops nothing', async () => {
  const toolCalls = [{ name: 'ask', arguments: { question: '' } }, run('echo after > after')]
  await using oz = await startHarnessFixture({ steps: [{ toolCalls }, { text: 'Done.' }] })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
  expect(readdirSync(oz.folder)).toEqual(['after'])
})

test('the same call is no circle when something worked in between', async () => {
  const handler = ({ number }: { number: number }) =>
    number === 12 ? { text: 'Done.' } : { toolCalls: [run(number % 2 ? 'exit 1' : 'true')] }
  await using oz = await startHarnessFixture({ handler })
  const session = await oz.open()
  expect(await session.prompt(turn('go'), never())).toMatchObject({ outcome: 'SUCCEEDED' })
})
