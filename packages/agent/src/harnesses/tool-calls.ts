import { firstEnd } from '../child-end.ts'
import { ask } from '../tools/ask.ts'
import type { Tool, ToolContext } from '../tools/tool.ts'
import { type CallResult, type RequestedCall, runToolCall } from '../tools/tool-call.ts'

/** Calls of one answer that run at the same time. */
const maxAtOnce = 8
/** How long a person who interrupts waits for tools to stop; what needs longer goes on stopping by itself. */
const interruptGraceMs = 300

/** Tools of these kinds only look, so that it does not matter which one looks first. */
const lookingKinds: ReadonlySet<Tool['kind']> = new Set<Tool['kind']>(['read', 'search', 'fetch'])

interface CallsOptions {
  tools: readonly Tool[]
  context: ToolContext
  /** Stops the calls, and waits for them. */
  signal: AbortSignal
  /** Stops the calls, and waits for them a moment only. */
  interrupted: AbortSignal
  /** Once per call that has ended, in the order of their ends, and for those that were stopped and have something to tell. */
  onResult: (result: CallResult) => void
}

/**
 * Runs the calls of one answer: neighbours that only look at the same time, everything else in order and alone. Rejects with the reason of the
 * signal that stopped it; `stillStopping` then holds what has not ended yet.
 */
export async function runToolCalls(
  calls: readonly RequestedCall[],
  options: CallsOptions & { stillStopping: Set<Promise<unknown>> },
): Promise<void> {
  const { tools, context, signal, interrupted, onResult, stillStopping } = options
  const stop = AbortSignal.any([signal, interrupted])
  let isAsking = false
  const run = async (call: RequestedCall) => {
    let stopped: CallResult | undefined
    const onStopped = (told: CallResult) => {
      stopped = told
    }
    const running = runToolCall(tools, call, { context, signal: stop, onStopped })
    const result = await orInterrupted(running, { signal, interrupted, stillStopping }).catch((error: unknown) => {
      // What it had said until then is worth knowing, also when its end cannot be waited for.
      if (stopped) onResult(stopped)
      throw error
    })
    onResult(result)
    isAsking ||= result.question !== undefined
  }
  for (const group of groupsOf(calls, tools)) {
    stop.throwIfAborted()
    if (isAsking && group.some(({ tool }) => tool !== ask.name)) for (const call of group) onResult(notRun(call))
    else await inParallel(group, run)
  }
}

/** What comes behind a question waits for its answer, as the model does. Further questions go to the person with the first one. */
function notRun({ id, tool }: RequestedCall): CallResult {
  const error =
    'Not run: a question is open, and ends your turn here. Make this call again after its answer, if it still makes sense.'
  return { id, tool, isError: true, result: { error } }
}

/** Of a step that was cut off: the calls that may have begun, and have not ended. Those behind them had not begun, and nobody saw them. */
export function cutCalls(
  calls: readonly RequestedCall[],
  results: readonly CallResult[],
  tools: readonly Tool[],
): RequestedCall[] {
  const hasEnded = ({ id }: RequestedCall) => results.some((result) => result.id === id)
  const group = groupsOf(calls, tools).find((one) => !one.every(hasEnded)) ?? []
  const begun = group.slice(0, group.filter(hasEnded).length + maxAtOnce)
  return begun.filter((call) => !hasEnded(call))
}

function groupsOf(calls: readonly RequestedCall[], tools: readonly Tool[]): RequestedCall[][] {
  const groups: RequestedCall[][] = []
  let looking: RequestedCall[] | undefined
  for (const call of calls) {
    const kind = tools.find(({ name }) => name === call.tool)?.kind
    if (kind === undefined || !lookingKinds.has(kind)) {
      looking = undefined
      groups.push([call])
    } else if (looking) looking.push(call)
    else {
      looking = [call]
      groups.push(looking)
    }
  }
  return groups
}

/** Waits for all of them also when one rejects: nothing may still run when a step is over. */
async function inParallel(calls: readonly RequestedCall[], run: (call: RequestedCall) => Promise<void>): Promise<void> {
  const rest = [...calls]
  const next = async () => {
    for (let call = rest.shift(); call; call = rest.shift()) await run(call)
  }
  const ends = await Promise.allSettled(Array.from({ length: Math.min(maxAtOnce, rest.length) }, next))
  const failed = ends.find((end) => end.status === 'rejected')
  if (failed) throw failed.reason
}

async function orInterrupted<T extends object>(
  running: Promise<T>,
  {
    signal,
    interrupted,
    stillStopping,
  }: Pick<CallsOptions, 'signal' | 'interrupted'> & { stillStopping: Set<Promise<unknown>> },
): Promise<T> {
  const settled: Promise<unknown> = running.then(
    () => stillStopping.delete(settled),
    () => stillStopping.delete(settled),
  )
  stillStopping.add(settled)
  const end = await firstEnd(running, { signal: interrupted })
  if (typeof end !== 'string') return end
  const late = await firstEnd(running, { timeoutMs: interruptGraceMs })
  if (typeof late !== 'string') return late
  if (signal.aborted) return running
  throw interrupted.reason
}
