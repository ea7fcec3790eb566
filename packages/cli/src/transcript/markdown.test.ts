import type { SessionEvent } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { createMarkdown } from './markdown.ts'

function document(events: Omit<SessionEvent, 'seq' | 'at'>[], { isFull = false } = {}): string {
  const markdown = createMarkdown({ isFull })
  const text = events
    .map((event, index) => markdown.add({ ...event, seq: index + 1, at: '2026-11-23T12:00:00Z' } as SessionEvent))
    .join('')
  return text + markdown.end()
}

const says = (messageId: string, text: string) =>
  ({ type: 'agent_message_chunk', data: { messageId, content: { type: 'text', text } } }) as const
const state = (name: string, message?: string) =>
  ({ type: 'run_state', data: { state: name, ...(message === undefined ? {} : { message }) } }) as const
const asks = (id: string, text: string, mode: 'queue' | 'steer', turn: number) =>
  ({ type: 'user_message', data: { text, turn, message_id: id, author: 'Ada', mode } }) as const

test('a run becomes a document: prompt, words, command, output, diff, outcome', () => {
  expect(
    document([
      state('QUEUED', 'waits'),
      { type: 'user_message', data: { text: 'fix it\n\nplease', turn: 1 } },
      state('INPROGRESS'),
      says('m', 'I look '),
      says('m', 'first.'),
      {
        type: 'tool_call',
        data: {
          toolCallId: 'c',
          tool: 'run_command',
          title: 'cat a.md',
          kind: 'execute',
          status: 'in_progress',
          rawInput: { command: 'cat a.md' },
        },
      },
      { type: 'terminal_output', data: { toolCallId: 'c', text: '```\n' } },
      {
        type: 'tool_call_update',
        data: {
          toolCallId: 'c',
          status: 'completed',
          content: [{ type: 'content', content: { type: 'text', text: '```\ncode\n```\n' } }],
          rawOutput: { exit_code: 0 },
          duration_ms: 12,
        },
      },
      {
        type: 'tool_call_update',
        data: {
          toolCallId: 'd',
          status: 'completed',
          content: [{ type: 'diff', path: 'a.js', oldText: 'one\n', newText: 'two\n' }],
        },
      },
      state('SUCCEEDED', 'Done.'),
    ]),
  ).toBe(`
## Turn 1

> fix it
>
> please

I look first.

**run_command**

\`\`\`sh
cat a.md
\`\`\`

\`\`\`\`
\`\`\`
code
\`\`\`
\`\`\`\`

_exit code 0 after 12 ms_

\`\`\`diff
--- a.js
+++ a.js
@@ -1,1 +1,1 @@
-one
+two
\`\`\`

_completed_

**SUCCEEDED**

> Done.
`)
})

test('what people said stands where the agent heard it', () => {
  const text = document([
    { type: 'user_message', data: { text: 'one', turn: 1 } },
    asks('b', 'two', 'queue', 2),
    asks('s', 'left', 'steer', 1),
    says('m1', 'working'),
    { type: 'message_delivered', data: { message_id: 's' } },
    says('m2', 'turning left'),
    asks('l', 'too late', 'steer', 1),
    state('SUCCEEDED'),
    state('INPROGRESS'),
    says('m3', 'second'),
    state('SUCCEEDED'),
    state('INPROGRESS'),
    says('m4', 'third'),
    asks('w', 'still waiting', 'queue', 4),
  ])
  const order = ['one', 'working', 'left', 'turning left', 'two', 'second', 'too late', 'third', 'still waiting']
  const places = order.map((words) => text.indexOf(`${words}\n`))
  expect(places).toEqual(places.toSorted((a, b) => a - b))
  expect(places).not.toContain(-1)
  expect(text).toContain('### Steering (Ada)\n\n> left\n')
  expect(text.endsWith('> still waiting\n\n_The agent has not heard it yet._\n')).toBe(true)
})

test('an answer that was cut off is left out, whatever was said in between', () => {
  const text = document([
    says('m1', 'I look.'),
    says('m2', 'Hello '),
    asks('s', 'left', 'steer', 1),
    { type: 'notice', data: { level: 'info', text: 'by the way' } },
    says('m2', 'brave '),
    { type: 'answer_withdrawn', data: { message_ids: ['m2'] } },
    { type: 'message_delivered', data: { message_id: 's' } },
    says('m3', 'Hello.'),
    state('SUCCEEDED'),
  ])
  expect(text).toBe('\nI look.\n\n> Note: by the way\n\n### Steering (Ada)\n\n> left\n\nHello.\n\n**SUCCEEDED**\n')
})

test('long output is folded, unless all of it is wanted', () => {
  const output = Array.from({ length: 500 }, (_, index) => `${index}\n`).join('')
  const content = [{ type: 'content' as const, content: { type: 'text' as const, text: output } }]
  const events = [
    { type: 'tool_call_update' as const, data: { toolCallId: 'c', status: 'completed' as const, content } },
  ]
  expect(document(events)).toContain('19\n… 470 more lines\n490\n')
  expect(document(events, { isFull: true })).toContain(output)
})
