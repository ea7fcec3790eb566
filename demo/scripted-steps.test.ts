import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import type { ChatMessage } from './scripted-conversation.ts'
import { testCommand } from './scripted-fix.ts'
import { nextStep } from './scripted-steps.ts'
import { type DemoTaskName, demoTasks } from './tasks.ts'

/** A conversation in which each step's call was answered with the next of these; `said` comes from a person. */
function play(
  answers: Record<string, unknown>[],
  task: DemoTaskName = 'fix',
): { messages: ChatMessage[]; texts: string[]; lastCall: object | undefined } {
  const messages: ChatMessage[] = [
    { role: 'system', content: '…' },
    { role: 'user', content: demoTasks[task].prompt },
  ]
  const texts: string[] = []
  for (const [index, answer] of [...answers, undefined].entries()) {
    if (typeof answer?.said === 'string') {
      messages.push({ role: 'user', content: answer.said })
      continue
    }
    const { text, call } = nextStep(messages)
    texts.push(text)
    if (!call || answer === undefined) return { messages, texts, lastCall: call?.input }
    const id = `call_${index}`
    const calls = [{ id, function: { name: call.tool, arguments: JSON.stringify(call.input) } }]
    messages.push({ role: 'assistant', content: text, tool_calls: calls })
    messages.push({ role: 'tool', tool_call_id: id, content: JSON.stringify(answer) })
  }
  return { messages, texts, lastCall: undefined }
}

const fails = { status: 'complete', exit_code: 1, output: 'not ok 2\n# pass 3\n# fail 1\n' }
const passes = { status: 'complete', exit_code: 0, output: '# pass 4\n# fail 0\n' }
const edited = { diff: '…' }

test('the tests are run first, and what they said is read', () => {
  expect(play([]).lastCall).toEqual({ command: testCommand })
  expect(play([fails]).texts.at(-1)).toContain('(3 pass, 1 fail)')
  expect(play([passes]).texts.at(-1)).toContain('pass already')
  expect(play([{ exit_code: 127, output: 'node: command not found' }]).texts.at(-1)).toContain('could not be run')
})

test('a repair that does not help is told as it is, and not committed', () => {
  const { texts, lastCall } = play([fails, edited, fails])
  expect(texts.at(-1)).toContain('still fail')
  expect(lastCall).toBeUndefined()
})

test('an edit or a commit that is refused ends the work with the reason', () => {
  expect(play([fails, { error: 'src/split-bill.js does not exist. Nothing was written.' }]).texts.at(-1)).toContain(
    'does not exist',
  )
  expect(play([fails, edited, passes, { exit_code: 128, output: 'fatal: no email' }]).texts.at(-1)).toContain(
    'no email',
  )
})

test('it asks for a commit only after the tests have passed', () => {
  expect(play([fails, edited, passes]).lastCall).toMatchObject({ command: expect.stringContaining('git commit') })
  expect(play([fails, edited, passes, { exit_code: 0, output: '' }]).texts.at(-1)).toMatch(/^Done\./)
})

test('asked for anything else it says what it is', () => {
  expect(nextStep([{ role: 'user', content: 'Write a poem.' }])).toEqual({ text: expect.stringContaining('scripted') })
})

test('what it replaces is in the sample project', async () => {
  const source = await readFile(new URL('./sample-project/src/split-bill.js', import.meta.url), 'utf8')
  const { lastCall } = play([fails])
  const { edits } = lastCall as { edits: { old_text: string }[] }
  for (const { old_text: text } of edits) expect(source.split(text)).toHaveLength(2)
})

const output = (text: string) => ({ exit_code: 0, output: text })

test('the refactoring is committed only when the programs print what they printed', () => {
  const until = (after: string) => play([{}, { files: [] }, output('same'), edited, passes, output(after)], 'refactor')
  expect(until('same').lastCall).toMatchObject({ command: expect.stringContaining('git commit') })
  const other = until('other')
  expect(other.lastCall).toBeUndefined()
  expect(other.texts.at(-1)).toContain('uncommitted')
  expect(play([{}, { error: 'src/main.js does not exist.' }], 'refactor').texts.at(-1)).toContain('does not exist')
})

test('a program that answers late is read until it has, and one that never does is stopped', () => {
  const started = { status: 'running', command_id: 'cmd-1', output: 'One bill per line\n' }
  const silent = { status: 'running', command_id: 'cmd-1', output: '' }
  const shares = { ...silent, output: 'Ada    33.33\nGrace  33.33\nLinus  33.33\n' }
  expect(play([started], 'server').lastCall).toEqual({ command_id: 'cmd-1', input: '100.00 Ada Grace Linus\n' })
  expect(play([started, silent], 'server').lastCall).toEqual({ command_id: 'cmd-1' })
  expect(play([started, silent, shares, { exit_code: 143, output: '' }], 'server').texts.at(-1)).toContain('99.99')
  const never = play([started, ...Array.from({ length: 6 }, () => silent), { exit_code: 143 }], 'server')
  expect(never.texts.at(-1)).toContain('nothing that I can read')
  expect(play([{ exit_code: 1, output: 'node: not found' }], 'server').texts.at(-1)).toContain('not found')
})

test('the answer to the question decides, in whatever execution it comes', () => {
  const asked = { status: 'asked' }
  const until = (...said: string[]) => play([fails, asked, ...said.map((text) => ({ said: text }))], 'question')
  expect(until('The last people who pay.').lastCall).toMatchObject({
    edits: [{ new_text: expect.stringContaining('firstWithMore') }],
  })
  expect(until('Note: the last machine is gone.', 'The first people.').lastCall).toMatchObject({
    edits: [{ new_text: expect.stringContaining('index < leftOver') }],
  })
  expect(until('Whatever.').texts.at(-1)).toContain('I need to know')
})
