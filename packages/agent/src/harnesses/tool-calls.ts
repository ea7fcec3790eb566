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
  /** Once per call that has ended, in the order of their ends. */
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
  const run = async (call: RequestedCall) => {
    const running = runToolCall(tools, call, { context, signal: stop })
    onResult(await orInterrupted(running, { signal, interrupted, stillStopping }))
  }
  for (const group of groupsOf(calls, tools)) {
    stop.throwIfAborted()
    await inParallel(group, run)
  }
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

async function orInterrupted<T>(
  running: Promise<T>,
  {
    signal,
    interrupted,
    stillStopping,
  }: Pick<CallsOptions, 'signal' | 'interrupted'> & { stillStopping: Set<Promise<unknown>> },
): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  let onInterrupt: (() => void) | undefined
  const patienceEnded = new Promise<never>((_, reject) => {
    onInterrupt = () => {
      timer = setTimeout(() => !signal.aborted && reject(interrupted.reason), interruptGraceMs)
    }
    if (interrupted.aborted) onInterrupt()
    else interrupted.addEventListener('abort', onInterrupt, { once: true })
  })
  const settled: Promise<unknown> = running.then(
    () => stillStopping.delete(settled),
    () => stillStopping.delete(settled),
  )
  stillStopping.add(settled)
  try {
    return await Promise.race([running, patienceEnded])
  } finally {
    clearTimeout(timer)
    if (onInterrupt) interrupted.removeEventListener('abort', onInterrupt)
  }
}
