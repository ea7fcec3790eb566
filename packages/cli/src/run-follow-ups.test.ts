import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { conversationResponse } from '@openoz/protocol/schemas'
import { expect, test } from 'vitest'
import { useControlPlane } from './test-support/control-plane.ts'
import { runOz } from './test-support/run-program.ts'

/** What is said to runs and read back, against one real control plane without a worker: every run waits. */
const home = useControlPlane()

const oz = (args: string[], input?: string) => runOz(args, home.env, input)
const json = async (args: string[], input?: string) =>
  JSON.parse((await oz([...args, '--output-format', 'json'], input)).stdout)

async function createRun(prompt: string): Promise<string> {
  return (await json(['agent', 'run-cloud', '-p', prompt, '--host', 'nobody'])).run_id
}

test('a message is given as an argument, as - or by a pipe alone, and each is a turn of its own', async () => {
  const runId = await createRun('one')
  const said = await oz(['run', 'follow-up', runId, 'two'])
  expect(said).toMatchObject({ exitCode: 0, stdout: `Accepted as turn 2.\nWatch it: oz run watch ${runId}\n` })
  expect(await json(['run', 'follow-up', runId, '-'], 'three\nlines\n')).toMatchObject({ mode: 'queue', turn: 3 })
  expect(await json(['run', 'follow-up', runId], 'four')).toMatchObject({ turn: 4 })
  expect(await json(['run', 'follow-up', runId, 'left!', '--mode', 'steer'])).toMatchObject({ mode: 'steer', turn: 1 })
  const { steps } = conversationResponse.parse(await json(['run', 'get', runId, '--conversation']))
  expect(steps.map(({ description }) => description)).toEqual(['one', 'two', 'three', 'four'])
  expect(steps[2]?.messages[0]?.content).toEqual([{ type: 'text', text: 'three\nlines' }])
  expect((await oz(['run', 'get', runId, '--conversation'])).stdout).toContain('▌ three\n▌ lines\n')
})

test('nothing to say, a mode that there is not, and a run that there is not are refused in words', async () => {
  const runId = await createRun('one')
  const { stderr } = await oz(['run', 'follow-up', runId], '')
  expect(stderr).toContain('nothing to say')
  expect(stderr).not.toContain('prompt')
  expect(await oz(['run', 'follow-up', runId, 'x', '--mode', 'shout'])).toMatchObject({ exitCode: 2 })
  const unknown = '0198c2f0-0000-7000-8000-000000000000'
  for (const args of [
    ['follow-up', unknown, 'x'],
    ['fork', unknown, '--prompt', 'x'],
    ['transcript', unknown],
    ['transcript', unknown, '--format', 'json'],
    ['get', unknown, '--conversation'],
  ])
    expect(await oz(['run', ...args]), args.join(' ')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('run_not_found'),
    })
  expect((await oz(['run', 'conversation', 'get', unknown])).stderr).toContain('conversation_not_found')
})

test('a cancel says how many messages it drops', async () => {
  const runId = await createRun('one')
  expect((await oz(['run', 'cancel', runId])).stdout).toBe(`Cancelled run ${runId}.\n`)
  const other = await createRun('one')
  for (const text of ['two', 'three']) await oz(['run', 'follow-up', other, text])
  expect((await oz(['run', 'cancel', other])).stdout).toMatch(/^Cancelled run .*\n.* 2 messages .*\n$/)
})

test('a fork is a run of its own', async () => {
  const runId = await createRun('one')
  const { run_id: forkId } = await json(['run', 'fork', runId, '--prompt', 'differently', '--title', 'Fork'])
  const { conversation_id: original } = await json(['run', 'get', runId])
  const fork = await json(['run', 'get', forkId])
  expect(fork).toMatchObject({ prompt: 'differently', title: 'Fork', state: 'QUEUED' })
  const shown = (await oz(['run', 'get', forkId])).stdout
  expect(shown).toMatch(new RegExp(`Conversation +${fork.conversation_id}\n`))
  expect(shown).toMatch(new RegExp(`Forked from +conversation ${original}\n`))
  expect((await oz(['run', 'get', runId])).stdout).not.toContain('Forked from')
  const { stdout } = await oz(['run', 'fork', runId, '--prompt', '-'], 'from a pipe\n')
  const [, id = ''] = /ID: (\S+)/.exec(stdout) ?? []
  expect((await json(['run', 'get', id])).prompt).toBe('from a pipe')
})

test('the text stands by itself or behind --prompt, in a fork as in a follow-up, and never is empty', async () => {
  const runId = await createRun('one')
  const { run_id: forkId } = await json(['run', 'fork', runId, 'differently'])
  expect((await json(['run', 'get', forkId])).prompt).toBe('differently')
  expect((await oz(['run', 'follow-up', runId, '--prompt', 'two'])).stdout).toContain('Accepted as turn 2.')
  for (const command of ['fork', 'follow-up']) {
    expect(await oz(['run', command, runId, 'a', '--prompt', 'b'])).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining('once'),
    })
    for (const empty of [['--prompt', ''], [' '], []])
      expect(await oz(['run', command, runId, ...empty], '')).toMatchObject({
        exitCode: 2,
        stderr: expect.stringContaining('nothing to say'),
      })
  }
  const cloud = (...args: string[]) => oz(['agent', 'run-cloud', ...args])
  expect(await cloud('--prompt', '')).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('nothing to say') })
  expect(await cloud('-p', 'x', '--conversation', 'nope')).toMatchObject({
    exitCode: 2,
    stdout: '',
    stderr: expect.stringMatching(/^error: --conversation .*"nope" is no id of a conversation.*\n$/),
  })
})

test('a transcript is the whole log as JSON, or a document to read, printed or saved', async () => {
  const runId = await createRun('one `two`')
  await oz(['run', 'cancel', runId])
  const document = await json(['run', 'transcript', runId])
  expect(document).toMatchObject({ run_id: runId, prompt: 'one `two`' })
  expect(document.events.at(-1)).toMatchObject({ type: 'run_state', data: { state: 'CANCELLED' } })
  expect(document).toEqual(JSON.parse((await oz(['run', 'transcript', runId, '--format', 'json'])).stdout))

  const { stdout } = await oz(['run', 'transcript', runId])
  expect(stdout).toMatch(/^# one `two`\n\n- Run `/)
  expect(stdout).toContain('## Turn 1 (Owner)\n\n> one `two`\n')
  const out = join(home.folder, 'run.md')
  expect((await oz(['run', 'transcript', runId, '--out', out])).stdout).toBe('')
  expect(await readFile(out, 'utf8')).toBe(stdout)

  const nowhere = join(home.folder, 'nowhere.md')
  await oz(['run', 'transcript', 'x', '--out', nowhere])
  expect(existsSync(nowhere)).toBe(false)
})

test('a conversation is JSON, over all its runs', async () => {
  const runId = await createRun('one')
  const { conversation_id: id } = await json(['run', 'get', runId])
  const { stdout } = await oz(['run', 'conversation', 'get', id])
  expect(conversationResponse.parse(JSON.parse(stdout))).toMatchObject({
    conversation_id: id,
    steps: [{ description: 'one' }],
  })
})

test('a new run continues the conversation of one that has ended', async () => {
  const runId = await createRun('one')
  await oz(['run', 'cancel', runId])
  const { conversation_id: id } = await json(['run', 'get', runId])
  const again = await json(['agent', 'run-cloud', '-p', 'two', '--host', 'nobody', '--conversation', id])
  expect(await json(['run', 'get', again.run_id])).toMatchObject({ conversation_id: id, prompt: 'two' })
  expect((await oz(['agent', 'run-cloud', '-p', 'three', '--conversation', id])).stderr).toContain('conversation_busy')
  expect(await oz(['agent', 'run-cloud', '-p', 'x', '--conversation', 'last'])).toMatchObject({ exitCode: 2 })
})

test('a run that rests is shown to its end, also from behind its last event', async () => {
  const runId = await createRun('one')
  await oz(['run', 'cancel', runId])
  const { last_event_sequence: last } = await json(['run', 'get', runId])
  const watched = await oz(['run', 'watch', runId, '--since', String(last - 1), '--output-format', 'ndjson'])
  expect(watched.exitCode).toBe(1)
  expect(JSON.parse(watched.stdout)).toMatchObject({ seq: last })
  expect(await oz(['run', 'watch', runId, '--since', String(last)])).toMatchObject({ exitCode: 1 })
  expect(await oz(['run', 'watch', runId, '--since', 'x'])).toMatchObject({ exitCode: 2 })
})
