import type { Conversation } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { createOutput } from '../output.ts'
import { printConversation } from './conversation-text.ts'

const conversation: Conversation = {
  conversation_id: '0198c2f0-0000-7000-8000-000000000000',
  steps: [
    {
      id: 't',
      started_at: '2026-11-23T12:00:00.000Z',
      completed_at: '2026-11-23T12:00:04.200Z',
      summary: 'All is well.',
      steps: [],
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'fix\nit' }] },
        {
          role: 'assistant',
          content: [
            { type: 'text', text: 'I look.' },
            { type: 'action', id: 'c', category: 'command', name: 'run_command', input: { command: 'ls' } },
          ],
        },
        {
          role: 'tool',
          content: [
            {
              type: 'action_result',
              action_id: 'c',
              category: 'command',
              name: 'run_command',
              state: 'completed',
              output: { output: 'a\u001b[2J\nb\n', exit_code: 0 },
            },
          ],
        },
      ],
    },
  ],
}

function print(format: 'pretty' | 'json' | 'ndjson'): string {
  let text = ''
  const stdout = { write: (part: string) => (text += part) }
  printConversation(createOutput(format, { stdout, stderr: stdout, env: {} }), conversation)
  return text
}

test('a conversation reads turn by turn, without what could move the cursor', () => {
  expect(print('pretty')).toBe(
    [
      'Turn 1  2026-11-23T12:00:00.000Z, 4.2 s',
      '',
      '▌ fix',
      '▌ it',
      '',
      'I look.',
      '',
      '● run_command ls',
      '  │ a',
      '  │ b',
      '  │ completed, exit_code 0',
      '',
      'Outcome: All is well.',
      '',
    ].join('\n'),
  )
})

test('programs get it as the server gave it', () => {
  for (const format of ['json', 'ndjson'] as const) expect(JSON.parse(print(format))).toEqual(conversation)
  expect(print('ndjson').trim().split('\n')).toHaveLength(1)
})
