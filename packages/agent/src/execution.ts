import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  bootClockMs,
  createEventPost,
  createMasker,
  type EventSender,
  endProcessTree,
  openSpool,
  type Spool,
  startEventSender,
} from '@openoz/machine'
import { repositoriesOf } from '@openoz/protocol'
import { followCommands } from './command-inbox.ts'
import { createEventLog, type EventLog } from './event-log.ts'
import { notice } from './event-sink.ts'
import type { TurnResult } from './harnesses/harness.ts'
import { saveLocally, saveToControlPlane } from './save-work.ts'
import { setupStep } from './setup-step.ts'
import { createStopSwitch, type StopReason, type StopSwitch } from './stop-switch.ts'
import { markerName, taskEnvironment } from './task-environment.ts'
import { type Execution, performTurn, type Turn } from './turn.ts'
import { turnFailure } from './turn-failure.ts'
import { repositoryAddress } from './workspace/repository-address.ts'

/**
 * One execution after its hello: what keeps it alive (events, lease, commands) around the one turn that it performs, and its end.
 *
 *   turn ends by itself    workspace saved → outcome → processes ended → everything delivered → exit
 *   cancelled, broken      the same, once harness and tools have stopped; the outcome is CANCELLED or ERROR
 *   asked to stop (143)    the same without an outcome, within seconds: the worker reports it, and the server decides
 *   superseded             processes ended, nothing said any more
 *   lease lost             processes ended, workspace saved beside the spool, which stays for the worker to deliver
 */

/** How long harness and tools may take to stop before they are ended, whatever they are doing. */
const stopGraceMs = 10_000
const processGraceMs = 2_000
/** After SIGTERM, because supervisors kill 10 s later: until the workspace must be saved, and then for the last events. */
const terminationMs = { stop: 2_000, save: 5_000, deliver: 2_000 }

export async function runExecution(execution: Execution): Promise<0 | 1 | 143> {
  const { hello, log, env } = execution
  const ownFolder = execution.spoolDir === undefined ? await mkdtemp(join(tmpdir(), 'oz-spool-')) : undefined
  const spool = await openSpool(execution.spoolDir ?? join(ownFolder ?? '', 'spool'), {
    maxBytes: hello.limits.spool_max_bytes,
  })
  const stop = createStopSwitch()
  const masker = createMasker(secretsOf(execution))
  const onFailure = (error: unknown) => stop.stop({ kind: 'break', error })
  const events = createEventLog({ spool, masker, onFailure })
  const taskEnv = taskEnvironment(env, hello)
  const life = keepAlive(execution, { spool, stop })
  const turn: Turn = { ...execution, events, masker, stop, taskEnv, workspace: undefined }
  try {
    reportHello(execution, events)
    const result = await performUntilStopped(turn)
    const outcome = await saveAndReport(turn, result)
    await teardown(events, taskEnv)
    const isDelivered = await deliver(life.sender, { stop, stopAfterMs: hello.limits.stop_after_ms })
    if (isDelivered && ownFolder !== undefined) await rm(ownFolder, { recursive: true, force: true })
    if (stop.reason?.kind === 'terminate') return 143
    return outcome?.outcome === 'SUCCEEDED' ? 0 : 1
  } catch (error) {
    log.error({ err: error }, 'the execution could not be brought to its end')
    await endProcesses(taskEnv)
    return stop.reason?.kind === 'terminate' ? 143 : 1
  } finally {
    await life.end()
    spool.close()
  }
}

function secretsOf({ executionToken, hello }: Execution): string[] {
  const inAddresses = repositoriesOf(hello.config.environment).flatMap(({ url }) => {
    try {
      return repositoryAddress(url).secrets
    } catch {
      return []
    }
  })
  return [executionToken, ...inAddresses]
}

/** Everything that runs beside the turn and can stop it. */
function keepAlive(execution: Execution, { spool, stop }: { spool: Spool; stop: StopSwitch }) {
  const { hello, channel, dialer, executionToken, log, signal } = execution
  const { renew_every_ms: renewEveryMs, stop_after_ms: stopAfterMs } = hello.limits
  const abandon = (why: 'superseded' | 'lease_lost', detail: string) => {
    if (stop.reason?.kind !== 'abandon') log.warn({ why }, `this execution ends: ${detail}`)
    stop.stop({ kind: 'abandon', why, detail })
  }
  spool.acknowledge(hello.acked_n)
  const sender = startEventSender({
    spool,
    post: createEventPost(dialer, () => executionToken),
    log,
    renewEveryMs,
    onSuperseded: () => abandon('superseded', 'another execution has taken over'),
  })
  void sender.ended.then((end) => {
    if (end.kind === 'refused') abandon('superseded', end.message)
  })
  const leaseWatch = setInterval(
    () => {
      const silentMs = bootClockMs() - sender.lastAcknowledgedSendAt
      if (silentMs > stopAfterMs) abandon('lease_lost', `nothing was acknowledged for ${Math.round(silentMs / 1000)} s`)
    },
    Math.min(1_000, stopAfterMs / 4),
  )
  const onTerminate = () => stop.stop({ kind: 'terminate', deadline: AbortSignal.timeout(terminationMs.save) })
  signal.addEventListener('abort', onTerminate, { once: true })
  if (signal.aborted) onTerminate()

  const inboxEnd = new AbortController()
  const inbox = followCommands({
    channel,
    signal: inboxEnd.signal,
    log,
    onRefused: (detail) => abandon('superseded', detail),
    onCommand: (command) => {
      if (command.type === 'cancel') stop.stop({ kind: 'cancel' })
      else if (command.type === 'stop') abandon('superseded', command.payload.reason)
    },
  })
  return {
    sender,
    async end() {
      clearInterval(leaseWatch)
      signal.removeEventListener('abort', onTerminate)
      inboxEnd.abort()
      await inbox
      await sender.stop()
    },
  }
}

function reportHello({ startedAt, notices = [] }: Execution, events: EventLog): void {
  const duration = Date.now() - startedAt.getTime()
  events.emit({
    type: 'setup_step',
    data: { step: 'hello', status: 'completed', started_at: startedAt.toISOString(), duration_ms: duration },
  })
  for (const text of notices) notice(events, 'info', text)
}

/** The turn's own result, or undefined when it was stopped. Waits for it to stop, but not for ever. */
async function performUntilStopped(turn: Turn): Promise<TurnResult | undefined> {
  const { working } = turn.stop
  const performed = performTurn(turn).catch((error: unknown) => {
    if (working.aborted) return undefined
    turn.log.warn({ err: error }, 'the turn could not be performed')
    return turnFailure(error)
  })
  let timer: NodeJS.Timeout | undefined
  const patienceEnded = new Promise<undefined>((resolve) => {
    const onStop = () => {
      const graceMs = turn.stop.reason?.kind === 'terminate' ? terminationMs.stop : stopGraceMs
      timer = setTimeout(() => resolve(undefined), graceMs)
    }
    if (working.aborted) onStop()
    else working.addEventListener('abort', onStop, { once: true })
  })
  try {
    return await Promise.race([performed, patienceEnded])
  } finally {
    clearTimeout(timer)
  }
}

/** Saves the workspace and says how the turn ended: the two things that must not be lost. Returns what was said. */
async function saveAndReport(turn: Turn, performed: TurnResult | undefined): Promise<TurnResult | undefined> {
  const { stop, events, hello } = turn
  if (stop.reason?.kind === 'abandon') {
    await endProcesses(turn.taskEnv)
    if (stop.reason.why === 'lease_lost') await saveLocally(turn)
    return undefined
  }
  let result = performed ?? resultOf(stop.reason)
  try {
    await saveToControlPlane(turn, stop.reason?.kind === 'terminate' ? stop.reason.deadline : undefined)
  } catch (error) {
    if (stop.ours.aborted) return undefined
    turn.log.error({ err: error }, 'the workspace could not be saved')
    // A success whose result is lost is none.
    if (result.outcome === 'SUCCEEDED') result = turnFailure(error)
  }
  if (stop.ours.aborted || stop.reason?.kind === 'terminate') return undefined
  const { outcome, message, errorCode } = result
  events.emitFinal({
    type: 'turn_outcome',
    data: { turn_id: hello.turn.turn_id, outcome, message, error_code: errorCode },
  })
  return result
}

function resultOf(reason: StopReason | undefined): TurnResult {
  if (reason?.kind === 'break') return turnFailure(reason.error)
  return { outcome: 'CANCELLED', message: 'Cancelled by user' }
}

async function teardown(events: EventLog, taskEnv: NodeJS.ProcessEnv): Promise<void> {
  await setupStep(events, { step: 'teardown' }, () => endProcesses(taskEnv))
  events.flush()
}

/** Also those that left their parents: daemons, and what a killed tool had started. */
async function endProcesses(taskEnv: NodeJS.ProcessEnv): Promise<void> {
  await endProcessTree({ marker: `${markerName}=${taskEnv[markerName]}` }, processGraceMs)
}

/** Whether everything that was said is with the control plane. While the lease may live there is hope; after SIGTERM there are seconds. */
async function deliver(
  sender: EventSender,
  { stop, stopAfterMs }: { stop: StopSwitch; stopAfterMs: number },
): Promise<boolean> {
  if (stop.reason?.kind === 'abandon') return false
  const patienceMs = stop.reason?.kind === 'terminate' ? terminationMs.deliver : stopAfterMs
  const signal = AbortSignal.any([AbortSignal.timeout(patienceMs), stop.ours])
  return sender.flushed(signal).catch(() => false)
}
