import type { AgentEvent } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { createJsonStream } from './json-stream.ts'

function show(events: AgentEvent[]) {
  const objects: Record<string, unknown>[] = []
  const stream = createJsonStream(
    (object) => objects.push(JSON.parse(JSON.stringify(object))),
    () => {},
  )
  for (const event of events) stream.event(event)
  stream.finished({ runId: 'r', conversationId: 'c', state: 'SUCCEEDED', message: '' })
  return objects.slice(0, -1)
}

const words = (type: 'agent_message_chunk' | 'agent_thought_chunk', messageId: string, text: string): AgentEvent => ({
  type,
  data: { messageId, content: { type: 'text', text } },
})

let calls = 0
function call(
  tool: string,
  rawInput: Record<string, unknown>,
  update: Partial<Extract<AgentEvent, { type: 'tool_call_update' }>['data']>,
): AgentEvent[] {
  const toolCallId = `call-${calls++}`
  return [
    { type: 'tool_call', data: { toolCallId, tool, title: tool, kind: 'other', status: 'in_progress', rawInput } },
    { type: 'tool_call_update', data: { toolCallId, status: 'in_progress' } },
    { type: 'tool_call_update', data: { toolCallId, status: 'completed', ...update } },
  ]
}
const text = (said: string) => [{ type: 'content' as const, content: { type: 'text' as const, text: said } }]

test('a message is printed whole, and what was withdrawn not at all', () => {
  expect(
    show([
      words('agent_thought_chunk', 't', 'hm'),
      words('agent_message_chunk', 'a', 'Hel'),
      words('agent_message_chunk', 'a', 'lo'),
      words('agent_message_chunk', 'b', 'cut o'),
      { type: 'answer_withdrawn', data: { message_ids: ['b'] } },
      { type: 'notice', data: { level: 'info', text: 'not of the stream' } },
      words('agent_message_chunk', 'c', 'Again'),
    ]),
  ).toEqual([
    { type: 'agent_reasoning', text: 'hm' },
    { type: 'agent', text: 'Hello' },
    { type: 'agent', text: 'Again' },
  ])
})

test('each tool has the fields that the reference gives it', () => {
  const edits = [
    { type: 'move', path: 'a', new_path: 'b' },
    { type: 'replace', path: 'b', old_text: 'x', new_text: 'y' },
  ]
  const upload = { artifact_uid: 'u', filepath: 'a.png', mime_type: 'image/png', size_bytes: 3 }
  expect(
    show([
      ...call(
        'run_command',
        { command: 'ls', timeout_ms: 1 },
        { rawOutput: { status: 'complete', exit_code: 0 }, content: text('a\n') },
      ),
      ...call(
        'run_command',
        { command: 'serve', background: true },
        { rawOutput: { status: 'running', command_id: 'c' } },
      ),
      ...call('read_files', { files: [{ path: 'a' }] }, { rawOutput: { files: [{ path: 'a' }], failed_files: [] } }),
      ...call('edit_files', { title: 't', edits }, { rawOutput: { diff: '--- a' } }),
      ...call('grep', { queries: ['x'] }, { rawOutput: { files: [{ path: 'a' }], cut: false } }),
      ...call(
        'report_artifact',
        { artifact_type: 'SCREENSHOT', path: 'a.png' },
        { rawOutput: { artifact_type: 'SCREENSHOT', ...upload } },
      ),
      ...call('web_fetch', { url: 'http://x', type: 'tool_call' }, { rawOutput: { status: 200 } }),
      ...call('run_command', { command: 'x' }, { status: 'failed', rawOutput: { error: 'no shell' } }),
      ...call('run_command', { command: 'y' }, { status: 'failed', cancelled: true }),
    ]),
  ).toEqual([
    { type: 'tool_call', tool: 'run_command', command: 'ls' },
    { type: 'tool_result', tool: 'run_command', status: 'complete', exit_code: 0, output: 'a\n' },
    { type: 'tool_call', tool: 'run_command', command: 'serve' },
    { type: 'tool_result', tool: 'run_command', status: 'running' },
    { type: 'tool_call', tool: 'read_files', files: [{ path: 'a' }] },
    { type: 'tool_result', tool: 'read_files', files: [{ path: 'a' }], failed_files: [] },
    { type: 'tool_call', tool: 'edit_files', title: 't', file_paths: ['a', 'b'] },
    { type: 'tool_result', tool: 'edit_files', diff: '--- a' },
    { type: 'tool_call', tool: 'grep', queries: ['x'], path: '.' },
    { type: 'tool_result', tool: 'grep', files: [{ path: 'a' }] },
    { type: 'tool_call', tool: 'upload_artifact', path: 'a.png' },
    { type: 'tool_result', tool: 'upload_artifact', ...upload },
    { type: 'tool_call', tool: 'web_fetch', url: 'http://x' },
    { type: 'tool_result', tool: 'web_fetch', status: 200 },
    { type: 'tool_call', tool: 'run_command', command: 'x' },
    { type: 'tool_error', tool: 'run_command', error: 'no shell' },
    { type: 'tool_call', tool: 'run_command', command: 'y' },
    { type: 'tool_canceled', tool: 'run_command' },
  ])
})

test('a plan is told when it changes, and what of it was done', () => {
  const plan = (first: 'pending' | 'completed'): AgentEvent => ({
    type: 'plan',
    data: {
      entries: [
        { content: 'Look\nat everything', priority: 'medium', status: first },
        { content: 'Mend', priority: 'medium', status: 'pending' },
      ],
    },
  })
  expect(show([plan('pending'), plan('pending'), plan('completed')])).toEqual([
    {
      type: 'update_todos',
      todo_list: [
        { title: 'Look', description: 'at everything' },
        { title: 'Mend', description: '' },
      ],
    },
    { type: 'complete_todos', completed_todos: [{ title: 'Look', description: 'at everything' }] },
  ])
})

test('artifacts are told by their kind', () => {
  const artifact = (artifact_type: string, data: Record<string, unknown>): AgentEvent => ({
    type: 'artifact',
    data: { artifact_type, ...data },
  })
  expect(
    show([
      artifact('PULL_REQUEST', { artifact_uid: 'u', url: 'http://pr', branch: 'b' }),
      artifact('PLAN', { document_uid: 'd', title: 'Plan', content: 'long' }),
      artifact('FILE', { artifact_uid: 'u', filepath: 'a', filename: 'a', mime_type: 'text/plain', blob_id: 'x' }),
    ]),
  ).toEqual([
    { type: 'artifact_created', artifact_type: 'pull_request', url: 'http://pr', branch: 'b' },
    { type: 'artifact_created', artifact_type: 'plan', document_id: 'd', title: 'Plan' },
    {
      type: 'artifact_created',
      artifact_type: 'file',
      artifact_uid: 'u',
      filepath: 'a',
      filename: 'a',
      mime_type: 'text/plain',
    },
  ])
})

test('warnings, and what the model is waited for, are said beside the objects and never among them', () => {
  const objects: unknown[] = []
  const notes: string[] = []
  const stream = createJsonStream(
    (object) => objects.push(object),
    (text) => notes.push(text),
  )
  const until = '2026-11-23T12:00:00Z'
  stream.event({ type: 'model_wait', data: { reason: 'it is overloaded', until, attempt: 2 } })
  stream.event({ type: 'notice', data: { level: 'warning', text: 'No room\nleft.' } })
  stream.event({ type: 'notice', data: { level: 'info', text: 'Only remarked.' } })
  expect(objects).toEqual([])
  expect(notes).toEqual([
    expect.stringMatching(/^… waiting for the model until \d\d:\d\d:00 \(it is overloaded; attempt 2\)$/),
    '! No room left.',
  ])
})

test('who gives a share is told when it takes effect', () => {
  const notes: string[] = []
  const stream = createJsonStream(
    () => {},
    (text) => notes.push(text),
  )
  const run = { runId: 'r', runUrl: 'http://u', conversationId: 'c' }
  stream.started({ ...run, isShared: false })
  expect(notes).toEqual([])
  stream.started({ ...run, isShared: true })
  expect(notes).toEqual(['The share is stored; it takes effect once people can sign in to this control plane.'])
})
