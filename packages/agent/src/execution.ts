import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMasker, type EventSender, openSpool, proxySecrets, repositoryAddress, type Spool } from '@openoz/machine'
import { type AgentEvent, type HelloResponse, leaseLostExitCode, repositoriesOf } from '@openoz/protocol'
import type { RunAgentResult } from './agent-options.ts'
import { createAttachments } from './attachments.ts'
import { firstEnd } from './child-end.ts'
import { createEventLog } from './event-log.ts'
import { notice } from './event-sink.ts'
import { closeGraceMs, type TurnResult } from './harnesses/harness.ts'
import { noKeptWork, openKeptWork } from './kept-work.ts'
import { sayLastWords } from './last-words.ts'
import { holdLease, type Lease, type LeaseLoss } from './lease.ts'
import { noLeaseFile, openLeaseFile } from './lease-file.ts'
import { holdLifeLine, startSender } from './life-line.ts'
import type { Execution, LiveExecution } from './live-execution.ts'
import { endProcesses, mustEndAtOnce } from './processes.ts'
import { createStopSwitch } from './stop-switch.ts'
import { isLocal, taskEnvironment } from './task-environment.ts'
import { createTurnMessages } from './turn-messages.ts'
import { performTurns } from './turns.ts'
import { createWakeCalls } from './wake-calls.ts'
import { forgetStarts } from './workspace/users-checkout.ts'

/**
 * One execution after its hello: what keeps it alive (events, lease, commands) around the turns that it performs, and its end.
 *
 *   nothing more to do     processes ended → everything delivered → goodbye → exit by the last outcome
 *   cancelled, broken      once harness and tools have stopped: workspace saved → outcome CANCELLED or ERROR → processes ended → exit
 *   asked to stop (143)    the same without an outcome, within seconds: the worker reports it, and the server decides
 *   interrupted (130)      as asked to stop, but the outcome is CANCELLED, said here: a run of a person's own machine has no worker
 *   now (130)              processes killed, what can be said within a moment
 *   superseded             processes killed, nothing said any more
 *   lease lost (75)        processes ended, workspace saved beside the spool, which stays for the worker to deliver; exit by the last outcome where
 *                          nothing is left undone. Too late for that (the machine slept): processes killed, and what is kept is the worker's to save
 */
export async function runExecution(given: Execution): Promise<RunAgentResult> {
  const { hello, log, now } = given
  const ownFolder = given.spoolDir === undefined ? await mkdtemp(join(tmpdir(), 'oz-spool-')) : undefined
  const spool = await openSpool(given.spoolDir ?? join(ownFolder ?? '', 'spool'), {
    maxBytes: hello.limits.spool_max_bytes,
    keepsRoom: true,
  })
  const execution = bringToLife(given, spool)
  const { taskEnv } = execution
  const lifeLine = holdLifeLine(given, { ...execution, onOver: (detail) => giveUp(execution, detail) })
  try {
    reportHello(execution)
    const last = await orNow(execution, performTurns(execution))
    if (ownFolder !== undefined && isDelivered(spool)) await rm(ownFolder, { recursive: true, force: true })
    const exitCode = stoppedCode(execution, spool) ?? (last?.outcome === 'SUCCEEDED' ? 0 : 1)
    return { exitCode, ...localEnd(hello, spool, last) }
  } catch (error) {
    log.error({ err: error }, 'the execution could not be brought to its end')
    await endProcesses(taskEnv)
    return { exitCode: stoppedCode(execution, spool) ?? 1, error, ...localEnd(hello, spool, undefined) }
  } finally {
    if (!now?.aborted) await closeSession(execution)
    await execution.attachments.remove()
    if (execution.workspace) await forgetStarts(execution.workspace)
    await lifeLine.end()
    spool.close()
  }
}

function localEnd(hello: HelloResponse, spool: Spool, last: TurnResult | undefined): Pick<RunAgentResult, 'local'> {
  return isLocal(hello) ? { local: { last, isDelivered: isDelivered(spool) } } : {}
}

function isDelivered({ ackedN, lastN }: Spool): boolean {
  return ackedN >= lastN
}

function stoppedCode(execution: LiveExecution, spool: Spool): 75 | 130 | 143 | undefined {
  const { reason } = execution.stop
  if (reason?.kind === 'terminate') return 143
  if (reason?.kind === 'interrupt') return 130
  const isLeaseLost = reason?.kind === 'abandon' && reason.why === 'lease_lost'
  return isLeaseLost && isWorkOwed(execution, spool) ? leaseLostExitCode : undefined
}

/** Whether somebody must go on from here, or say what this execution could not say. */
function isWorkOwed({ openTurn, unsaved, isAsking }: LiveExecution, spool: Spool): boolean {
  return openTurn !== undefined || isAsking || unsaved.size > 0 || !isDelivered(spool)
}

/** Waits for the turns, until `now`. Whoever says so a second time has no patience for anything. */
async function orNow(
  execution: LiveExecution,
  turns: Promise<TurnResult | undefined>,
): Promise<TurnResult | undefined> {
  const { now, stop, taskEnv } = execution
  const end = await firstEnd(turns, now ? { signal: now } : {})
  // Without a time limit the one thing that is said instead of the turns' end is `now`.
  if (typeof end !== 'string') return end
  stop.stop({ kind: 'interrupt', deadline: AbortSignal.abort() })
  const [, last] = await Promise.all([endProcesses(taskEnv, { graceMs: 0 }), sayLastWords(execution)])
  return last
}

function bringToLife(given: Execution, spool: Spool): LiveExecution {
  const { hello, env, log } = given
  const stop = createStopSwitch()
  const masker = createMasker([...secretsOf(given), ...(given.secrets ?? [])])
  const onFailure = (error: unknown) => stop.stop({ kind: 'break', error })
  const onEvent = (event: AgentEvent) => {
    // Nothing is begun on a lease that ended while the machine slept.
    if (event.type === 'setup_step') execution.lease.check()
    given.onEvent?.(event)
  }
  const events = createEventLog({ spool, masker, onFailure, onEvent })
  const taskEnv = taskEnvironment(env, hello)
  const sender = startSender(given, { spool, onOver: (detail) => giveUp(execution, detail) })
  const execution: LiveExecution = {
    ...given,
    events,
    sender,
    masker,
    stop,
    lease: leaseOf(given, { spool, sender, onLost: (loss) => loseLease(execution, loss) }),
    messages: createTurnMessages(),
    calls: createWakeCalls(),
    attachments: createAttachments({
      given: hello.attachments,
      channel: given.channel,
      sink: events,
      parent: given.spoolDir,
    }),
    // Kept for a worker, which a local run does not have.
    kept: isLocal(hello)
      ? noKeptWork
      : openKeptWork(spool.folder, (error) => log.warn({ err: error }, 'work cannot be kept on the local disk')),
    taskEnv,
    workspace: undefined,
    session: undefined,
    remembered: undefined,
    sentMessages: new Set(),
    unsaved: new Set(),
    openTurn: undefined,
    isAsking: false,
    isLeaving: false,
  }
  // Before anything else is done about the end: by now somebody else may be at work.
  stop.ours.addEventListener('abort', () => {
    if (mustEndAtOnce(execution)) void endProcesses(taskEnv, { graceMs: 0 })
  })
  execution.lease.check()
  return execution
}

/** A run of a person's own machine is tried nowhere else: it goes on for as long as it can, and delivers when it can. */
function leaseOf(
  { hello, log }: Execution,
  { spool, sender, onLost }: { spool: Spool; sender: EventSender; onLost: (loss: LeaseLoss) => void },
): Lease {
  const common = { limits: hello.limits, lastAcknowledgedSendAt: () => sender.lastAcknowledgedSendAt }
  if (isLocal(hello)) return holdLease({ ...common, file: noLeaseFile, onLost: undefined })
  const file = openLeaseFile(spool.folder, (error) => log.warn({ err: error }, 'the lease cannot be written down'))
  return holdLease({ ...common, file, onLost })
}

function loseLease({ stop, log }: LiveExecution, { silentMs, graceMs }: LeaseLoss): void {
  if (stop.reason?.kind === 'abandon') return
  const detail = `nothing was acknowledged for ${Math.round(silentMs / 1000)} s`
  log.warn({ why: 'lease_lost' }, `this execution ends: ${detail}`)
  stop.stop({ kind: 'abandon', why: 'lease_lost', detail, graceMs })
}

async function closeSession({ session }: LiveExecution): Promise<void> {
  if (!session) return
  await firstEnd(session.close(), { timeoutMs: closeGraceMs })
}

/** Nobody wants to hear of this execution any more. */
function giveUp({ stop, log, isLeaving }: LiveExecution, detail: string): void {
  if (stop.reason?.kind === 'abandon') return
  if (isLeaving) log.debug(`the execution is over: ${detail}`)
  else log.warn({ why: 'superseded' }, `this execution ends: ${detail}`)
  stop.stop({ kind: 'abandon', why: 'superseded', detail })
}

function secretsOf({ executionToken, hello, env }: Execution): string[] {
  const inAddresses = repositoriesOf(hello.config.environment).flatMap(({ url }) => {
    try {
      return repositoryAddress(url).secrets
    } catch {
      return []
    }
  })
  return [executionToken, ...inAddresses, ...proxySecrets(env)]
}

function reportHello({ startedAt, notices = [], events }: LiveExecution): void {
  const duration = Date.now() - startedAt.getTime()
  events.emit({
    type: 'setup_step',
    data: { step: 'hello', status: 'completed', started_at: startedAt.toISOString(), duration_ms: duration },
  })
  for (const text of notices) notice(events, 'info', text)
}
