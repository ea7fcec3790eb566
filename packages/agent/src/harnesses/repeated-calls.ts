import { AppError } from '@openoz/protocol'
import type { CallResult, RequestedCall } from '../tools/tool-call.ts'
import { noteMark } from './conversation.ts'

/** Failures of the same call, with no success between them: at the first number the model is told, at the second the turn ends. */
const toldAt = 3
const stoppedAt = 5

/**
 * Notices a model that goes in circles: it makes a call that fails, and makes it again, alone or in turn with others that fail too. A call that
 * works ends the circle. A command that ends with an exit code other than 0 is a failure here.
 */
export interface RepeatedCalls {
  /** Once per finished step. Answers what to tell the model, if it is time for that. Throws `turn_repeats_itself`. */
  add(calls: readonly RequestedCall[], results: readonly CallResult[]): string | undefined
}

export function createRepeatedCalls(): RepeatedCalls {
  const failures = new Map<string, number>()
  return {
    add(calls, results) {
      let note: string | undefined
      // What one answer asks for several times at once, it has not seen fail yet.
      const counted = new Set<string>()
      for (const { id, tool, input } of calls) {
        const problem = problemOf(results.find((result) => result.id === id))
        if (problem === undefined) {
          failures.clear()
          continue
        }
        const key = `${tool} ${JSON.stringify(input)}`
        if (counted.has(key)) continue
        counted.add(key)
        const count = (failures.get(key) ?? 0) + 1
        failures.set(key, count)
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
  if (result.isError) return (typeof error === 'string' ? error : 'it failed').slice(0, 300)
  return typeof exitCode === 'number' && exitCode !== 0 ? `exit code ${exitCode}` : undefined
}

function tellOf(tool: string, count: number): string {
  return (
    `${noteMark} you have made the same call of ${tool} ${count} times, and it failed each time. It will fail again. Find out why, do ` +
    `something else, or end your answer and say what stands in the way. After ${stoppedAt} times you are stopped.`
  )
}
