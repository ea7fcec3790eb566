import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { said, startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import type { ModelRequest, ScriptedStep } from '../../../../test/support/scripted-model.ts'
import { decodeCheckpoint } from './checkpoint.ts'
import type { HarnessCheckpoint } from './harness.ts'

const steps = [
  ['a', 'b'],
  ['c', 'd'],
  ['e', 'f'],
]
const append = (line: string) => ({ name: 'run_command', arguments: { command: `echo ${line} >> log` } })

interface ChatMessage {
  role: string
  content: string
  tool_calls?: { function: { arguments: string } }[]
}

/** Goes through the script by what the conversation shows, and makes calls again that were stopped before they ended. */
function nextStep({ body }: ModelRequest): ScriptedStep {
  const messages = body.messages as ChatMessage[]
  const lastAnswer = messages.findLastIndex(({ role }) => role === 'assistant')
  const results = messages.slice(lastAnswer + 1).filter(({ role }) => role === 'tool')
  const stopped = (messages[lastAnswer]?.tool_calls ?? []).filter((_, index) =>
    results[index]?.content.includes('was stopped'),
  )
  if (stopped.length > 0) {
    return { toolCalls: stopped.map((call) => ({ name: 'run_command', arguments: call.function.arguments })) }
  }
  const done = messages.filter(({ role, content }) => role === 'tool' && content.includes('exit_code')).length
  const lines = steps.flat().slice(done, done + 2)
  return lines.length > 0 ? { text: `Next: ${lines}`, toolCalls: lines.map(append) } : { text: 'All written.' }
}

class Killed extends Error {}

/** Works until the harness keeps something for the nth time, and goes no further; Infinity: to the end. */
async function workUntilKilled(killedAt: number) {
  await using oz = await startHarnessFixture({ handler: nextStep })
  const input = turn('write', { messages: [said('in lower case')] })
  const kept: HarnessCheckpoint[] = []
  const first = await oz.open({
    keep(checkpoint) {
      kept.push(checkpoint)
      if (kept.length === killedAt) throw new Killed()
    },
  })
  const ended = await first.prompt(input, new AbortController().signal)
  if (killedAt > kept.length) return { keeps: kept.length }
  expect(ended.outcome).toBe('ERROR')
  const asked = oz.model.requests.length

  const checkpoint = kept.at(-1)
  const known = checkpoint?.takenMessageIds ?? []
  const messages = input.messages.filter(({ message_id }) => !known.includes(message_id))
  const next = await oz.open({ checkpoint })
  const result = await next.prompt({ ...input, messages }, new AbortController().signal)
  const last = await next.checkpoint()
  return {
    keeps: kept.length,
    asked,
    result,
    log: readFileSync(join(oz.folder, 'log'), 'utf8'),
    requests: oz.model.requests,
    conversation: last && decodeCheckpoint(last),
  }
}

const { keeps } = await workUntilKilled(Number.POSITIVE_INFINITY)

test('every answer and every result is kept', () => {
  // Three answers, six results, three finished steps, and the last answer.
  expect(keeps).toBe(13)
})

test.each(Array.from({ length: 13 }, (_, index) => index + 1))(
  'killed when it had kept something for the %i. time, the next execution repeats no finished step and loses none',
  async (killedAt) => {
    const { result, log, requests = [], asked = 0, conversation } = await workUntilKilled(killedAt)
    expect(result).toMatchObject({ outcome: 'SUCCEEDED', message: 'All written.' })
    expect(log?.split('\n').filter(Boolean)).toEqual(steps.flat())
    // Nothing that the first execution knew is asked again: each request of the second one has everything that was done before.
    const before = requests[asked - 1]?.body.messages as ChatMessage[]
    for (const request of requests.slice(asked)) {
      const shown = (request.body.messages as ChatMessage[]).map(({ role, content }) => `${role} ${content}`)
      for (const { role, content } of before) expect(shown).toContain(`${role} ${content}`)
      expect(shown.filter((text) => text === 'user write').length).toBe(1)
      expect(shown.filter((text) => text === 'user in lower case').length).toBe(1)
    }
    expect(conversation?.isAnswered).toBe(true)
    expect(conversation?.unfinished).toBeUndefined()
  },
)
