import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { type ChatMessage, nextStep, testCommand } from './scripted-steps.ts'

const prompt: ChatMessage = { role: 'user', content: 'Make the failing test pass, commit, and summarise.' }

/** A conversation in which each step's call was answered with the next of these. */
function play(answers: object[]): { messages: ChatMessage[]; texts: string[]; lastCall: object | undefined } {
  const messages: ChatMessage[] = [{ role: 'system', content: '…' }, prompt]
  const texts: string[] = []
  for (const [index, answer] of [...answers, undefined].entries()) {
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
