import { sleep } from '@openoz/machine'
import { AppError, type DrainWorkerResponse } from '@openoz/protocol'
import type { CommandContext } from './command-context.ts'
import type { Connection } from './connection.ts'
import { printJson } from './output.ts'
import { oneLine } from './plain-text.ts'
import { isRetryable } from './send-once.ts'
import { untilInterrupted } from './stop-signals.ts'
import { drainText } from './worker-lists.ts'

export interface DrainOptions {
  wait?: boolean
  /** End the drain instead. */
  off?: boolean
}

type Context = CommandContext & { connection: Connection }

/** Between looks of `--wait`: a run ends within seconds of its last word at best. */
const lookEveryMs = 1_000

/** Exit code 0 once it is drained, with `--wait` once nothing runs there; 130 when the waiter had enough: the drain stays. */
export async function drainWorker(context: Context, workerId: string, options: DrainOptions): Promise<number> {
  const { connection, output } = context
  const { workers } = connection.client
  if (options.off) {
    const answer = await workers.endDrain(workerId)
    if (output.isJson) printJson(output, answer)
    else
      output.line(`${oneLine(workerId)} takes runs again${answer.connections === 0 ? ', once it is connected' : ''}.`)
    return 0
  }
  const first = await workers.drain(workerId)
  if (!options.wait) {
    if (output.isJson) printJson(output, first)
    else for (const line of drainLines(first, Date.now())) output.line(line)
    return 0
  }
  return untilInterrupted(
    async (signal) => {
      if (!output.isJson) for (const line of drainLines(first, Date.now())) output.line(line)
      const isDrained = await untilEmpty(context, { first, signal })
      if (!isDrained) throw new AppError('worker_not_drained', { workerId })
      if (output.isJson) printJson(output, { ...first, active: 0 })
      else if (first.active > 0) output.line('Nothing runs there any more.')
      return 0
    },
    () => output.note(`\nNo longer waiting. ${oneLine(workerId)} stays drained; end that with --off.`),
  )
}

/** False when somebody has ended the drain meanwhile: it would never be empty. */
async function untilEmpty(
  { connection, progress }: Context,
  { first, signal }: { first: DrainWorkerResponse; signal: AbortSignal },
): Promise<boolean> {
  let { active } = first
  // An offer that was under way when the drain was asked for comes a moment after the first answer.
  for (let looks = 0; looks === 0 || active > 0; looks++) {
    progress.waitFor(`${runsText(active)} on ${oneLine(first.worker_id)}`)
    await sleep(lookEveryMs, signal)
    signal.throwIfAborted()
    try {
      const { drains } = await connection.client.workers.list()
      const drain = drains.find(({ worker_id }) => worker_id === first.worker_id)
      if (!drain) return false
      active = drain.active
    } catch (error) {
      // A control plane that is started anew meanwhile is no reason to stop waiting.
      if (!isRetryable(error)) throw error
    }
  }
  return true
}

function drainLines({ worker_id, drain, connections, active }: DrainWorkerResponse, now: number): string[] {
  const lines = [
    `${oneLine(worker_id)} is drained${drain ? ` (${drainText(drain, now)})` : ''}: nothing new is offered to it.`,
  ]
  if (active > 0) lines.push(`${runsText(active)} there ${active === 1 ? 'goes' : 'go'} on.`)
  else lines.push('Nothing runs there.')
  if (connections === 0) lines.push('No worker of this id is connected; whoever connects under it is drained too.')
  return lines
}

const runsText = (count: number) => (count === 1 ? '1 run' : `${count} runs`)
