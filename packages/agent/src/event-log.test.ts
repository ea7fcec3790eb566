import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMasker, openSpool, type Spool } from '@openoz/machine'
import type { AgentEvent } from '@openoz/protocol'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createEventLog } from './event-log.ts'

let folder: string
let spool: Spool
let failures: unknown[]
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-log-'))
  failures = []
})
afterEach(() => {
  spool.close()
  rmSync(folder, { recursive: true })
})

async function openLog(maxBytes = 1_000_000) {
  spool = await openSpool(folder, { maxBytes })
  return createEventLog({
    spool,
    masker: createMasker(['hunter2-and-more']),
    onFailure: (error) => failures.push(error),
  })
}

const word = (text: string, messageId = 'm'): AgentEvent => ({
  type: 'agent_message_chunk',
  data: { messageId, content: { type: 'text', text } },
})
const output = (text: string, toolCallId = 't'): AgentEvent => ({ type: 'terminal_output', data: { toolCallId, text } })
const said = () =>
  spool.pending(0).map(({ type, data }) => {
    const { content, text } = data as { content?: { text: string }; text?: string }
    return `${type} ${content?.text ?? text ?? ''}`.trim()
  })

test('pieces of one message are one event; secrets are masked across them and in everything else', async () => {
  const log = await openLog()
  log.emit(word('The password is hun'))
  log.emit(word('ter2-and-more, and aHVudGVyMi1hbmQtbW9yZQ== too.'))
  log.emit({ type: 'notice', data: { level: 'info', text: 'hunter2-and-more' } })
  expect(said()).toEqual([
    expect.stringMatching(/^agent_message_chunk The password is \*\*\*, and \*\*\*=* too\.$/),
    'notice ***',
  ])
})

test('what is held back for masking comes out when its message or command ends', async () => {
  const log = await openLog()
  log.emit(word('ends with hun'))
  log.emit(word('next', 'm2'))
  log.emit(output('prints hun'))
  log.emit({ type: 'tool_call_update', data: { toolCallId: 'other', status: 'completed' } })
  log.emit(output('ter2-and-more'))
  log.emit({ type: 'tool_call_update', data: { toolCallId: 't', status: 'completed' } })
  expect(said()).toEqual([
    'agent_message_chunk ends with hun',
    'agent_message_chunk next',
    'terminal_output prints',
    'tool_call_update',
    'terminal_output ***',
    'tool_call_update',
  ])
})

test('a command that outlives its call is masked and heard to its end, over the end of a turn', async () => {
  const log = await openLog()
  log.emit(output('starts\n'))
  log.emit({ type: 'tool_call_update', data: { toolCallId: 't', status: 'completed' } })
  log.emit(output('late hun'))
  log.emit(word('meanwhile'))
  log.emitFinal({ type: 'turn_outcome', data: { turn_id: 't', outcome: 'SUCCEEDED', message: 'done' } })
  log.emit(output('ter2-and-more\n'))
  log.emit(output('[ended]\n'))
  log.emit(output('hunt'))
  log.flush()
  const late = said().filter((text) => text.startsWith('terminal_output'))
  expect(late).toEqual(['terminal_output starts', 'terminal_output late', 'terminal_output ***\n[ended]\nhunt'])
  expect(failures).toEqual([])
})

test('a full spool stops the execution once, and still takes the outcome', async () => {
  const log = await openLog(10_000)
  const notice: AgentEvent = { type: 'notice', data: { level: 'info', text: 'x'.repeat(4_000) } }
  for (let i = 0; i < 10; i++) log.emit(notice)
  expect(failures).toMatchObject([{ code: 'spool_full' }])
  log.emitFinal({ type: 'turn_outcome', data: { turn_id: 't', outcome: 'ERROR', message: 'full' } })
  expect(said().at(-1)).toBe('turn_outcome')
})

test('producers wait before the spool is full, until something was delivered', async () => {
  const log = await openLog(10_000)
  log.emit({ type: 'notice', data: { level: 'info', text: 'x'.repeat(9_000) } })
  let isReady = false
  const waiting = log.ready(new AbortController().signal).then(() => {
    isReady = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  expect(isReady).toBe(false)
  spool.acknowledge(1)
  await waiting
  await expect(log.ready(AbortSignal.abort(new Error('stopped')))).rejects.toThrow('stopped')
})
