import { bootClockMs } from '@openoz/machine'
import type { TurnInput } from '@openoz/protocol'
import { isRefusal } from './channel.ts'
import { deliver } from './delivery.ts'
import type { TurnResult } from './harnesses/harness.ts'
import { leaveStopped } from './last-words.ts'
import type { LiveExecution } from './live-execution.ts'
import { endProcesses, hasProcesses, mustEndAtOnce, processGraceMs } from './processes.ts'
import { saveLocally, saveToControlPlane } from './save-work.ts'
import { setupStep } from './setup-step.ts'
import { isLocal } from './task-environment.ts'
import { performTurn } from './turn.ts'

/**
 * The turns of an execution, one after the other, and the rest between them.
 *
 *   turn ──▶ SUCCEEDED, BLOCKED ──▶ ask for the next one ◀── a `turn` command
 *     ▲                               │ a turn   │ none        │
 *     ├───────────────────────────────┘          ▼             │
 *     │                                        rest, as long as the idle window ──▶ `end_idle`, or the window's end
 *     │      FAILED, ERROR (unless a window for them was asked for), no idle window ──▶ end processes, goodbye: ask for the last time ◀──┘
 *     │                               a turn     │     │ none: the execution has ended with the answer
 *     └──────────────────────────────────────────┘
 *
 * Whoever is stopped asks nothing more, not even for the last time, at work or at rest: a turn that it would be given would be lost with it,
 * while one that waits is given to the next execution. After a cancel there is no next one, and a local run never has one: its agent says goodbye
 * also when it was stopped.
 *
 * Before every question all that was said is with the control plane. The goodbye is the last call of all, since the execution's token ends with
 * it; processes end before it, so that nothing is at work that nobody answers for.
 */
export async function performTurns(execution: LiveExecution): Promise<TurnResult | undefined> {
  let { turn } = execution.hello
  const performed = new Set<string>()
  for (;;) {
    const result = await performTurn(execution, turn)
    performed.add(turn.turn_id)
    const next = (await restForNext(execution, result)) ?? (await leave(execution, result))
    if (!next) return result
    if (performed.has(next.turn_id)) throw new Error(`the control plane asks again for the turn ${next.turn_id}`)
    turn = next
  }
}

/** The next turn, when there is one while this execution may go on as it is. */
async function restForNext(execution: LiveExecution, result: TurnResult | undefined): Promise<TurnInput | undefined> {
  const { stop, calls, taskEnv, log } = execution
  const restMs = restAfter(execution, result)
  if (restMs <= 0 || !(await settle(execution))) return undefined

  const restUntil = bootClockMs() + restMs
  while (!stop.working.aborted) {
    calls.clear()
    const turn = await ask(execution, { isLast: false })
    if (turn || stop.working.aborted) return turn
    log.debug('at rest, waiting for a message')
    if (await hasProcesses(taskEnv)) markWorkspaceUnsaved(execution)
    if ((await calls.next(restUntil, stop.working)) !== 'turn') return undefined
  }
  return undefined
}

function restAfter({ hello, idle }: LiveExecution, result: TurnResult | undefined): number {
  switch (result?.outcome) {
    case 'SUCCEEDED':
    case 'BLOCKED':
      return idle?.onCompleteMs ?? hello.idle_timeout_ms
    case 'FAILED':
    case 'ERROR':
      return idle?.onFailMs ?? 0
    default:
      return 0
  }
}

/** Ends what runs and asks for the last time. Answers the turn that was there after all. */
async function leave(execution: LiveExecution, result: TurnResult | undefined): Promise<TurnInput | undefined> {
  const { stop, unsaved, log } = execution
  if (stop.reason?.kind !== 'abandon') await teardown(execution)
  if (stop.reason?.kind === 'abandon') {
    const { reason } = stop
    await endProcesses(execution.taskEnv, { graceMs: endGraceOf(execution) })
    if (reason.why === 'lease_lost' && unsaved.has('workspace')) await saveLocally(execution)
    return undefined
  }
  const isDelivered = await settle(execution)
  if (!isDelivered || !result) return undefined
  if (stop.reason !== undefined) {
    if (isLocal(execution.hello)) await leaveStopped(execution)
    return undefined
  }
  execution.isLeaving = true
  const turn = await ask(execution, { isLast: true })
  if (!turn) return undefined
  execution.isLeaving = false
  log.info('a message came while the agent was leaving; it goes on')
  return turn
}

/** Of what is left before the deadline, the most is for saving. */
function endGraceOf(execution: LiveExecution): number {
  return mustEndAtOnce(execution) ? 0 : Math.max(0, Math.min(processGraceMs, execution.lease.leftMs() / 3))
}

async function ask(execution: LiveExecution, { isLast }: { isLast: boolean }): Promise<TurnInput | undefined> {
  const { channel, stop } = execution
  try {
    execution.isAsking = true
    const { turn, attachments = [] } = await channel.nextTurn({ is_last: isLast }, stop.working)
    execution.isAsking = false
    if (!turn) return undefined
    execution.attachments.given = attachments
    return turn
  } catch (error) {
    if (stop.working.aborted) return undefined
    if (!isRefusal(error)) throw error
    execution.isAsking = false
    // After a goodbye it is what we asked for: an earlier answer was lost on its way.
    if (!isLast) stop.stop({ kind: 'abandon', why: 'superseded', detail: error.problem.detail })
    return undefined
  }
}

/** What went on in the background may have changed files since the last turn was saved. */
async function teardown(execution: LiveExecution): Promise<void> {
  const { events, taskEnv, unsaved, stop, log } = execution
  await setupStep(events, { step: 'teardown' }, async () => {
    await execution.session?.session.endBackground()
    await endProcesses(taskEnv)
    if (!unsaved.has('workspace')) return
    await saveToControlPlane(execution).catch((error: unknown) => {
      if (!stop.saving.aborted) log.error({ err: error }, 'the workspace could not be saved')
    })
  })
  events.flush()
}

function markWorkspaceUnsaved({ unsaved, kept, workspace, hello }: LiveExecution): void {
  unsaved.add('workspace')
  if (workspace) kept.keepWorkspace({ workspace, maxBytes: hello.limits.workspace_max_bytes })
}

/** Waits until the control plane has all that was said. False: it does not, and will not. */
async function settle(execution: LiveExecution): Promise<boolean> {
  const { unsaved, kept } = execution
  const isDelivered = await deliver(execution)
  if (isDelivered && unsaved.size === 0) kept.saved()
  return isDelivered
}
