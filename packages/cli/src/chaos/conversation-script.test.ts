import { expect, test } from 'vitest'
import { answerTo, type ChatMessage, noteText, turnText } from './conversation-script.ts'

const turn = { steps: ['beat', 'background', 'ask'] as const, begins: 'at-rest' as const, said: [] }
const asked: ChatMessage = { role: 'user', content: turnText(4, 0, { ...turn, steps: [...turn.steps] }) }
const stopped = '{"status":"stopped","error":"This call was stopped before it ended."}'

function calls(id: string, result: string): ChatMessage[] {
  return [
    { role: 'assistant', tool_calls: [{ id, function: { name: 'run_command', arguments: '{}' } }] },
    { role: 'tool', tool_call_id: id, content: result },
  ]
}

const next = (messages: ChatMessage[]) => {
  const answer = answerTo(
    messages,
    ({ run, turn: number, step, attempt, kind }) => `${run} ${number} ${step} ${attempt} ${kind}`,
  )
  return 'call' in answer ? answer.call : answer.text
}

test('each step is one call, in order, and the last answer ends the turn', () => {
  const done = [asked, ...calls('call-0-0-0', '{"exit_code":0}')]
  expect(next([asked])).toMatchObject({ id: 'call-0-0-0', name: 'run_command', input: { command: '4 0 0 0 beat' } })
  expect(next(done)).toMatchObject({ id: 'call-0-1-0', input: { command: '4 0 1 0 background', background: true } })
  const asks = [...done, ...calls('call-0-1-0', '{"status":"running"}')]
  expect(next(asks)).toMatchObject({ name: 'ask' })
  expect(next([...asks, ...calls('call-0-2-0', '{"status":"asked"}')])).toBe('Turn 0 is done.')
})

test('a call that was stopped is made again, under another id', () => {
  expect(next([asked, ...calls('call-0-0-0', stopped)])).toMatchObject({
    id: 'call-0-0-1',
    input: { command: '4 0 0 1 beat' },
  })
})

test('an answer that was interrupted ends nothing', () => {
  expect(next([asked, { role: 'assistant', content: 'Step 1 of' }])).toMatchObject({ id: 'call-0-0-0' })
})

test('what is said to a turn at work changes nothing of its steps, and alone is only noted', () => {
  const note: ChatMessage = { role: 'user', content: [{ type: 'text', text: noteText(4, 0, 0) }] }
  expect(next([asked, note])).toMatchObject({ id: 'call-0-0-0' })
  expect(next([asked, { role: 'assistant', content: 'Turn 0 is done.' }, note])).toBe('Noted.')
})
