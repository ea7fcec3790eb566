import type { SessionEvent } from '@openoz/protocol'
import pc from 'picocolors'
import { expect, test } from 'vitest'
import { createSessionRenderer } from './session-renderer.ts'

function show(events: Omit<SessionEvent, 'seq' | 'at'>[]) {
  let text = ''
  const renderer = createSessionRenderer((part) => {
    text += part
  }, pc.createColors(false))
  for (const [index, event] of events.entries()) {
    renderer.render({ ...event, seq: index + 1, at: '2026-11-23T12:00:00Z' } as SessionEvent)
  }
  return { text, summary: renderer.summary }
}

test('a run reads like a story: state, words, command with its output, diff, tokens, outcome', () => {
  const { text, summary } = show([
    { type: 'run_state', data: { state: 'INPROGRESS', message: 'The agent is at work.' } },
    { type: 'setup_step', data: { step: 'clone', status: 'started' } },
    { type: 'setup_step', data: { step: 'clone', status: 'completed', duration_ms: 120, title: 'Clone acme/shop' } },
    { type: 'user_message', data: { text: 'fix it', turn: 1 } },
    { type: 'agent_message_chunk', data: { messageId: 'm', content: { type: 'text', text: 'I look ' } } },
    { type: 'agent_message_chunk', data: { messageId: 'm', content: { type: 'text', text: 'first.' } } },
    {
      type: 'tool_call',
      data: {
        toolCallId: 'c',
        tool: 'run_command',
        title: 'npm test',
        kind: 'execute',
        status: 'in_progress',
        rawInput: { command: 'npm test' },
      },
    },
    { type: 'terminal_output', data: { toolCallId: 'c', text: 'not ok\n' } },
    {
      type: 'tool_call_update',
      data: {
        toolCallId: 'c',
        status: 'failed',
        content: [{ type: 'content', content: { type: 'text', text: 'not ok\n' } }],
        duration_ms: 1200,
      },
    },
    {
      type: 'tool_call_update',
      data: {
        toolCallId: 'd',
        status: 'completed',
        content: [{ type: 'diff', path: 'a.js', oldText: 'one\ntwo\n', newText: 'one\nthree\n' }],
      },
    },
    { type: 'usage', data: { model: 'x/y', input_tokens: 1200, output_tokens: 30, total_tokens: 1230 } },
    { type: 'run_state', data: { state: 'SUCCEEDED', message: 'I look first.' } },
  ])
  expect(text).toBe(
    [
      'INPROGRESS  The agent is at work.',
      '✔ Clone acme/shop 120 ms',
      '',
      '▌ fix it',
      '',
      'I look first.',
      '',
      '$ npm test',
      '  │ not ok',
      '  ✘ failed 1.2 s',
      '  a.js',
      '   one',
      '  -two',
      '  +three',
      '  ✔ completed',
      '  tokens: 1,200 in, 30 out (x/y)',
      '',
      'SUCCEEDED',
      '',
    ].join('\n'),
  )
  expect(summary).toMatchObject({ state: 'SUCCEEDED', inputTokens: 1200, outputTokens: 30, lastWords: 'I look first.' })
})

test('output that was not shown while it came is shown with the result', () => {
  const content = [{ type: 'content' as const, content: { type: 'text' as const, text: 'late\n' } }]
  expect(show([{ type: 'tool_call_update', data: { toolCallId: 'c', status: 'completed', content } }]).text).toBe(
    '  │ late\n  ✔ completed\n',
  )
})

test('an event that a newer server invented is passed over', () => {
  expect(show([{ type: 'hologram', data: {} } as never]).text).toBe('')
})

test('late evidence does not change the outcome that is shown', () => {
  const { summary } = show([
    { type: 'run_state', data: { state: 'SUCCEEDED' } },
    { type: 'run_state', data: { state: 'ERROR', late: true } },
  ])
  expect(summary.state).toBe('SUCCEEDED')
})
