import { expect, test } from 'vitest'
import { builtInTools } from '../tools/tools.ts'
import { cutCalls } from './tool-calls.ts'

function cut(tools: string[], ended: number[]): number[] {
  const calls = tools.map((tool, index) => ({ id: String(index), tool, input: {} }))
  const results = ended.map((index) => ({ id: String(index), tool: '', result: {} }))
  return cutCalls(calls, results, builtInTools).map(({ id }) => Number(id))
}

test.each([
  ['nothing, where there was nothing', [], [], []],
  ['nothing, where all have ended', ['run_command', 'grep'], [1, 0], []],
  ['the one that ran alone, not those behind it', ['run_command', 'run_command', 'run_command'], [0], [1]],
  ['the first, where none has ended', ['edit_files', 'grep'], [], [0]],
  ['neighbours that only look, together', ['run_command', 'grep', 'read_files', 'run_command'], [0, 2], [1]],
  ['as many at once as may run', Array<string>(12).fill('grep'), [0, 3], [1, 2, 4, 5, 6, 7, 8, 9]],
])('of a step that was cut off these calls had begun: %s', (_, tools, ended, expected) => {
  expect(cut(tools, ended)).toEqual(expected)
})
