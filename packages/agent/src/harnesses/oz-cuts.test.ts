import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { modelAccesses, startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import { wires } from '../../../../test/support/model-wires.ts'
import type { ScriptedStep } from '../../../../test/support/scripted-model.ts'
import { decodeCheckpoint } from './checkpoint.ts'

const answer: ScriptedStep = {
  text: ['I write ', 'two lines.'],
  toolCalls: ['one', 'two'].map((line) => ({
    id: `call_${line}`,
    name: 'run_command',
    arguments: { command: `echo ${line} >> log` },
  })),
}

/** After every piece of the answer, and in the middle of every piece. */
function positionsOf(wire: string, model: string): number[] {
  const pieces = wires.find(({ name }) => name === wire)?.pieces(answer, model) ?? []
  const positions: number[] = []
  let at = 0
  for (const piece of pieces) {
    const { length } = Buffer.from(piece)
    positions.push(at, at + Math.floor(length / 2))
    at += length
  }
  // A whole answer is no cut.
  return positions
}

test.each(modelAccesses)(
  'an answer may be cut at any place: what is kept is the same, and tools run once ($wire)',
  async (access) => {
    await using oz = await startHarnessFixture({
      access,
      handler: ({ body }) => (JSON.stringify(body).includes('echo one') ? { text: 'Done.' } : answer),
    })
    const log = join(oz.folder, 'log')
    const performed = async () => {
      const session = await oz.open()
      const result = await session.prompt(turn('go', { turn_id: '1' }), new AbortController().signal)
      expect(result).toMatchObject({ outcome: 'SUCCEEDED', message: 'Done.' })
      const checkpoint = await session.checkpoint()
      const lines = readFileSync(log, 'utf8')
      rmSync(log)
      return { lines, conversation: checkpoint && comparable(decodeCheckpoint(checkpoint)) }
    }
    const whole = await performed()
    expect(whole.lines).toBe('one\ntwo\n')

    const positions = positionsOf(access.wire, access.id)
    expect(positions.length).toBeGreaterThan(8)
    for (const bytes of positions) {
      for (const ends of [true, false]) {
        oz.cutNext({ bytes, ends })
        expect({ bytes, ends, ...(await performed()) }).toEqual({ bytes, ends, ...whole })
      }
    }
    // Nearly all of them were asked again; where only the last words of the wire were missing that is not needed.
    expect(oz.eventsOf('model_wait').length).toBeGreaterThanOrEqual(positions.length)
  },
)

/** Without times and numbers that differ from run to run. */
function comparable({ messages, step, isAnswered, turnSteps }: ReturnType<typeof decodeCheckpoint>) {
  const text = JSON.stringify(messages).replaceAll(/msg_[\w-]+|txt-\w+/g, 'ID')
  return { messages: JSON.parse(text) as unknown, step, isAnswered, turnSteps }
}
