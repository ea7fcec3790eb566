import type { AgentEvent } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { createChunkMerger } from './chunk-merger.ts'

const says = (text: string, messageId = 'm1'): AgentEvent => ({
  type: 'agent_message_chunk',
  data: { messageId, content: { type: 'text', text } },
})
const prints = (text: string, toolCallId?: string): AgentEvent => ({
  type: 'terminal_output',
  data: { toolCallId, text },
})
const notice: AgentEvent = { type: 'notice', data: { level: 'info', text: 'note' } }

function merger(options: { windowMs?: number; maxLength?: number } = {}) {
  const texts: string[] = []
  let isFull = false
  const made = createChunkMerger({
    append: (event) => {
      if (isFull) throw new Error('full')
      expect(Date.parse(event.at)).toBeGreaterThan(0)
      if (event.type === 'agent_message_chunk') texts.push(`${event.data.messageId}: ${event.data.content.text}`)
      else if (event.type === 'terminal_output') texts.push(`${event.data.toolCallId}$ ${event.data.text}`)
      else texts.push(event.type)
    },
    windowMs: 60_000,
    ...options,
  })
  return { ...made, texts, setFull: (value: boolean) => (isFull = value) }
}

test('neighbours of one message are joined, everything else keeps its place', () => {
  const { add, flush, texts } = merger()
  for (const event of [
    says('a'),
    says('b'),
    says('c', 'm2'),
    says('d'),
    notice,
    says('e'),
    prints('1', 't'),
    prints('2', 't'),
    prints('3'),
  ])
    add(event)
  flush()
  flush()
  expect(texts).toEqual(['m1: ab', 'm2: c', 'm1: d', 'notice', 'm1: e', 't$ 12', 'undefined$ 3'])
})

test('a piece is held no longer than the window, and not at all when it is large', async () => {
  const { add, flush, texts } = merger({ windowMs: 20, maxLength: 10 })
  add(says('a'))
  expect(texts).toEqual([])
  await expect.poll(() => texts).toEqual(['m1: a'])
  add(says('0123456'))
  add(says('789 and more'))
  expect(texts).toEqual(['m1: a', 'm1: 0123456789 and more'])
  flush()
})

test('what a full spool does not take stays, and the next call says so', async () => {
  const { add, flush, texts, setFull } = merger({ windowMs: 5, maxLength: 3 })
  setFull(true)
  add(says('abc'))
  expect(() => add(says('def'))).toThrow('full')
  expect(() => flush()).toThrow('full')
  setFull(false)
  add(says('def'))
  flush()
  expect(texts).toEqual(['m1: abc', 'm1: def'])
})
