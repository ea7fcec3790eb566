import type { TurnInput, TurnMessage } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { createTurnMessages } from './turn-messages.ts'

function turn(id: string, ...messages: TurnMessage[]): TurnInput {
  return { turn_id: id, number: 1, message: 'Do it.', messages }
}

function said(id: string, mode: TurnMessage['mode'] = 'steer'): TurnMessage {
  return { message_id: id, mode, text: `text of ${id}` }
}

function createListener() {
  const heard: string[] = []
  const hear = (mode: string) => (message: TurnMessage) => void heard.push(`${mode} ${message.message_id}`)
  return { heard, steer: hear('steer'), interrupt: hear('interrupt') }
}

test('what is said before the harness is there becomes part of the turn, once and in order', () => {
  const messages = createTurnMessages()
  const input = turn('t1', said('a'))
  messages.take({ turn_id: 't1', ...said('b') })
  messages.begin(input)
  messages.take({ turn_id: 't1', ...said('a') })
  messages.take({ turn_id: 't1', ...said('c', 'interrupt') })
  messages.take({ turn_id: 't1', ...said('b') })
  expect(messages.handOver(createListener()).messages).toEqual([said('a'), said('b'), said('c', 'interrupt')])
  expect(input.messages).toEqual([said('a')])
})

test('what is said after that reaches the harness at once, in its mode, and only once', () => {
  const messages = createTurnMessages()
  messages.begin(turn('t1', said('a')))
  const listener = createListener()
  messages.handOver(listener)
  for (const message of [said('a'), said('b'), said('c', 'interrupt'), said('b')])
    messages.take({ turn_id: 't1', ...message })
  expect(listener.heard).toEqual(['steer b', 'interrupt c'])
})

test('a message to a turn that has ended is dropped, one to a turn that is still on its way is kept for it', () => {
  const messages = createTurnMessages()
  messages.begin(turn('t1'))
  const listener = createListener()
  messages.handOver(listener)
  messages.take({ turn_id: 't2', ...said('early') })
  messages.end()
  messages.take({ turn_id: 't1', ...said('late') })
  messages.begin(turn('t2'))
  expect(messages.handOver(listener).messages).toEqual([said('early')])
  expect(listener.heard).toEqual([])
})
