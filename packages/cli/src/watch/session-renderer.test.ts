import type { SessionEvent } from '@openoz/protocol'
import pc from 'picocolors'
import { expect, test } from 'vitest'
import { createSessionRenderer } from './session-renderer.ts'

function show(
  events: Omit<SessionEvent, 'seq' | 'at'>[],
  { isFull = false, ...more }: { isFull?: boolean; folderName?: string } = {},
) {
  let text = ''
  const renderer = createSessionRenderer(
    (part) => {
      text += part
    },
    { colors: pc.createColors(false), isFull, ...more },
  )
  for (const [index, event] of events.entries()) {
    renderer.render({ ...event, seq: index + 1, at: '2026-11-23T12:00:00Z' } as SessionEvent)
  }
  renderer.end()
  return { text, summary: renderer.summary }
}

test('a run reads like a story: state, words, command with its output, diff, outcome', () => {
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
      '',
      'SUCCEEDED',
      '',
    ].join('\n'),
  )
  expect(summary).toMatchObject({ state: 'SUCCEEDED', lastWords: 'I look first.' })
})

test('how far a step is grows in one line, and goes on in a new one after other words', () => {
  const pull = (status: 'progress' | 'completed', more: object) =>
    ({ type: 'setup_step', data: { step: 'image_pull', status, ...more } }) as const
  const at = (current: number) => pull('progress', { progress: { current, total: 100, unit: 'bytes' } })
  const { text } = show([
    at(10),
    at(11),
    at(52),
    { type: 'notice', data: { level: 'info', text: 'meanwhile' } },
    at(90),
    pull('completed', { duration_ms: 1500, detail: 'debian:12' }),
  ])
  expect(text).toBe('… image pull 10 % 50 %\ni meanwhile\n… image pull 90 %\n✔ image pull 1.5 s — debian:12\n')
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

test('long output shows its beginning, its end and how much lies between; --full shows all', () => {
  const text = Array.from({ length: 100 }, (_, index) => `${index + 1}\n`).join('')
  const events: Parameters<typeof show>[0] = [
    { type: 'terminal_output', data: { toolCallId: 'c', text: text.slice(0, 50) } },
    { type: 'terminal_output', data: { toolCallId: 'c', text: text.slice(50) } },
    { type: 'tool_call_update', data: { toolCallId: 'c', status: 'completed', rawOutput: { exit_code: 0 } } },
  ]
  const folded = show(events).text
  expect(folded).toContain('│ 12\n  ┆ 80 more lines (--full shows all)\n  │ 93\n')
  expect(folded.endsWith('│ 100\n  ✔ exit code 0\n')).toBe(true)
  const full = show(events, { isFull: true }).text
  expect(full.match(/│/g)).toHaveLength(100)
})

test('output of a command that has not ended is shown when the watching does', () => {
  const text = 'x\n'.repeat(30)
  expect(show([{ type: 'terminal_output', data: { toolCallId: 'c', text } }]).text.match(/│ x/g)).toHaveLength(20)
})

test('an answer that was cut off is marked, and its words are not the last ones', () => {
  const says = (messageId: string, text: string) =>
    ({ type: 'agent_message_chunk', data: { messageId, content: { type: 'text', text } } }) as const
  const { text, summary } = show([
    says('a', 'Hello brave '),
    { type: 'answer_withdrawn', data: { message_ids: ['t', 'a'] } },
    says('b', 'Hello.'),
    { type: 'run_state', data: { state: 'SUCCEEDED', message: 'Hello.' } },
  ])
  expect(text).toBe('Hello brave \n(answer cut off, asked again)\n\nHello.\n\nSUCCEEDED\n')
  const cut = show([says('a', 'Hello'), { type: 'answer_withdrawn', data: { message_ids: ['a'] } }])
  expect({ ...summary, cut: cut.summary.lastWords }).toMatchObject({ lastWords: 'Hello.', cut: '' })
})

test('who said what, and how, and that the agent has read it', () => {
  const { text } = show([
    { type: 'user_message', data: { text: 'fix it', turn: 1 } },
    { type: 'user_message', data: { text: 'left!\nnow', turn: 1, message_id: 'a', author: 'Ada', mode: 'steer' } },
    { type: 'message_delivered', data: { message_id: 'a' } },
    { type: 'user_message', data: { text: 'and then', turn: 2, message_id: 'b', author: 'Bob', mode: 'queue' } },
  ])
  expect(text).toBe(
    '▌ fix it\n\n▌ left!\n▌ now\n  — Ada, steering turn 1\n\n↳ the agent has read “left!”\n\n▌ and then\n  — Bob, turn 2\n\n',
  )
})

test('a question is shown with its lines, a plan as a checklist, an artifact with its address, a wait with its end', () => {
  const { text } = show([
    {
      type: 'plan',
      data: {
        entries: [
          { content: 'look', priority: 'medium', status: 'completed' },
          { content: 'repair', priority: 'medium', status: 'in_progress' },
        ],
      },
    },
    { type: 'artifact', data: { artifact_type: 'pull_request', url: 'https://git.test/1', branch: 'oz/x' } },
    { type: 'model_wait', data: { reason: 'overloaded', until: '2026-11-23T12:00:10Z', attempt: 2 } },
    { type: 'run_state', data: { state: 'BLOCKED', message: 'Which one?\n1 or 2' } },
  ])
  const until = new Date('2026-11-23T12:00:10Z').toLocaleTimeString('en-GB')
  expect(text).toBe(
    [
      'Plan, 1 of 2 done',
      '  ☑ look',
      '  ▶ repair',
      '',
      '◆ pull request https://git.test/1 · oz/x',
      `… waiting for the model until ${until} (overloaded; attempt 2)`,
      '',
      'BLOCKED  The agent asks:',
      '? Which one?',
      '? 1 or 2',
      '',
    ].join('\n'),
  )
})

test('a command in the background is shown once, however often it is read, and stopping it is no failure', () => {
  const call = (toolCallId: string, tool: string, title: string) => ({
    type: 'tool_call' as const,
    data: { toolCallId, tool, title, kind: 'execute' as const, status: 'in_progress' as const, rawInput: {} },
  })
  const content = [{ type: 'content' as const, content: { type: 'text' as const, text: 'pong\n' } }]
  const { text } = show([
    call('a', 'run_command', 'ping'),
    { type: 'tool_call_update', data: { toolCallId: 'a', status: 'completed', rawOutput: { status: 'running' } } },
    call('b', 'write_to_command', 'Write to cmd-1'),
    { type: 'terminal_output', data: { toolCallId: 'a', text: 'pong\n' } },
    {
      type: 'tool_call_update',
      data: { toolCallId: 'b', status: 'completed', content, rawOutput: { status: 'running' } },
    },
    call('c', 'stop_command', 'Stop cmd-1'),
    {
      type: 'tool_call_update',
      data: { toolCallId: 'c', status: 'completed', content, rawOutput: { exit_code: 143 } },
    },
  ])
  expect(text).toBe('● ping\n  ✔ runs on\n\n● Write to cmd-1\n  │ pong\n  ✔ runs on\n\n● Stop cmd-1\n  ✔ stopped\n')
})

test('plans and questions are not shown a second time as calls, unless they failed', () => {
  const call = {
    toolCallId: 'a',
    tool: 'todo',
    title: 'Plan',
    kind: 'think',
    status: 'in_progress',
    rawInput: {},
  } as const
  const done = { toolCallId: 'a', status: 'completed', rawOutput: { todos: 1 } } as const
  const events = [
    { type: 'tool_call' as const, data: call },
    { type: 'tool_call_update' as const, data: done },
  ]
  expect(show(events).text).toBe('')
  const failed = { toolCallId: 'a', status: 'failed' } as const
  const stopped = { ...failed, cancelled: true } as const
  const stoppedCall = { ...call, tool: 'grep', title: 'Search' }
  expect(
    show([
      { type: 'tool_call', data: stoppedCall },
      { type: 'tool_call_update', data: stopped },
    ]).text,
  ).toBe('● Search\n  ✘ stopped\n')
  expect(
    show([
      { type: 'tool_call', data: call },
      { type: 'tool_call_update', data: failed },
    ]).text,
  ).toContain('✘ failed')
})

test('work that was saved goes by the name of its folder, also where that is the one the run works in', () => {
  const saved = (url: string | null, dir = '.') => {
    const repository = { dir, url, branch: null, base: null, head: null, commits: 1, uncommitted: false }
    const counts = { files_changed: 1, insertions: 2, deletions: 0, has_bundle: true, has_diff: true }
    return [{ type: 'workspace_saved', data: { repositories: [{ ...repository, ...counts }] } }] as never
  }
  expect(show(saved(null), { folderName: 'shop' }).text).toContain('saved shop: 1 file')
  expect(show(saved('https://git.example.com/acme/tools.git/')).text).toContain('saved tools: 1 file')
  expect(show(saved('git@h.example:cart.git')).text).toContain('saved cart: 1 file')
  expect(show(saved(null)).text).toContain('saved the working folder: 1 file')
  expect(show(saved(null, 'lib'), { folderName: 'shop' }).text).toContain('saved lib: 1 file')
})
