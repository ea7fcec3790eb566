import { AppError } from '@openoz/protocol'
import { shortened } from '../live-output.ts'
import type { Tool } from '../tools/tool.ts'
import type { CallResult, RequestedCall } from '../tools/tool-call.ts'
import { noteMark } from './conversation.ts'

/** Failures of the same call, with no progress between them: at the first number the model is told, at the second the turn ends. */
const toldAt = 3
const stoppedAt = 5

/** Tools of these kinds change something when they work, so that any call may end differently after that. */
const changingKinds: ReadonlySet<Tool['kind']> = new Set<Tool['kind']>(['edit', 'delete', 'move', 'execute'])

/**
 * Notices a model that goes in circles: it makes a call that fails, and makes it again, alone or in turn with others. What ends the circle is
 * progress: a call that works and may have changed something, or another call of the same tool that works. A plan that is written, or a file that
 * is read, between two failing commands is none. A command that ends with an exit code other than 0 is a failure here.
 */
export interface RepeatedCalls {
  /** Once per finished step. Answers what to tell the model, if it is time for that. Throws `turn_repeats_itself`. */
  add(calls: readonly RequestedCall[], results: readonly CallResult[]): string | undefined
}

export function createRepeatedCalls(tools: readonly Pick<Tool, 'name' | 'kind'>[]): RepeatedCalls {
  /** By tool, and then by arguments. */
  const failures = new Map<string, Map<string, number>>()
  const forgetAfter = (tool: string) => {
    const kind = tools.find(({ name }) => name === tool)?.kind
    if (kind !== undefined && changingKinds.has(kind)) failures.clear()
    else failures.delete(tool)
  }
  return {
    add(calls, results) {
      let note: string | undefined
      // What one answer asks for several times at once, it has not seen fail yet.
      const counted = new Set<string>()
      for (const { id, tool, input } of calls) {
        const problem = problemOf(results.find((result) => result.id === id))
        if (problem === undefined) {
          forgetAfter(tool)
          continue
        }
        const text = JSON.stringify(input)
        if (counted.has(`${tool} ${text}`)) continue
        counted.add(`${tool} ${text}`)
        const ofTool = failures.get(tool) ?? new Map<string, number>()
        const count = (ofTool.get(text) ?? 0) + 1
        failures.set(tool, ofTool.set(text, count))
        if (count >= stoppedAt) throw new AppError('turn_repeats_itself', { count, tool, problem })
        if (count === toldAt) note = tellOf(tool, count)
      }
      return note
    },
  }
}

function problemOf(result: CallResult | undefined): string | undefined {
  if (!result) return undefined
  const { error, exit_code: exitCode } = result.result
  if (result.isError) return shortened(typeof error === 'string' ? error : 'it failed', 300)
  return typeof exitCode === 'number' && exitCode !== 0 ? `exit code ${exitCode}` : undefined
}

function tellOf(tool: string, count: number): string {
  return (
    `${noteMark} you have made the same call of ${tool} ${count} times, and it failed each time. It will fail again. Find out why, do ` +
    `something else, or end your answer and say what stands in the way. After ${stoppedAt} times you are stopped.`
  )
}
