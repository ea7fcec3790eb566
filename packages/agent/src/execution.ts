import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMasker, openSpool, type Spool, sleep } from '@openoz/machine'
import { repositoriesOf } from '@openoz/protocol'
import { createEventLog } from './event-log.ts'
import { notice } from './event-sink.ts'
import { openKeptWork } from './kept-work.ts'
import { holdLifeLine, startSender } from './life-line.ts'
import type { Execution, LiveExecution } from './live-execution.ts'
import { endProcesses } from './processes.ts'
import { createStopSwitch } from './stop-switch.ts'
import { taskEnvironment } from './task-environment.ts'
import { createTurnMessages } from './turn-messages.ts'
import { performTurns } from './turns.ts'
import { createWakeCalls } from './wake-calls.ts'
import { repositoryAddress } from './workspace/repository-address.ts'

/**
 * One execution after its hello: what keeps it alive (events, lease, commands) around the turns that it performs, and its end.
 *
 *   nothing more to do     processes ended → everything delivered → goodbye → exit by the last outcome
 *   cancelled, broken      once harness and tools have stopped: workspace saved → outcome CANCELLED or ERROR → processes ended → exit
 *   asked to stop (143)    the same without an outcome, within seconds: the worker reports it, and the server decides
 *   superseded             processes ended, nothing said any more
 *   lease lost             processes ended, workspace saved beside the spool, which stays for the worker to deliver
 */
export async function runExecution(given: Execution): Promise<0 | 1 | 143> {
  const { hello, log } = given
  const ownFolder = given.spoolDir === undefined ? await mkdtemp(join(tmpdir(), 'oz-spool-')) : undefined
  const spool = await openSpool(given.spoolDir ?? join(ownFolder ?? '', 'spool'), {
    maxBytes: hello.limits.spool_max_bytes,
  })
  const execution = bringToLife(given, spool)
  const { stop, taskEnv } = execution
  const lifeLine = holdLifeLine(given, { ...execution, onOver: (detail) => giveUp(execution, detail) })
  try {
    reportHello(execution)
    const result = await performTurns(execution)
    if (ownFolder !== undefined && spool.ackedN >= spool.lastN) await rm(ownFolder, { recursive: true, force: true })
    if (stop.reason?.kind === 'terminate') return 143
    return result?.outcome === 'SUCCEEDED' ? 0 : 1
  } catch (error) {
    log.error({ err: error }, 'the execution could not be brought to its end')
    await endProcesses(taskEnv)
    return stop.reason?.kind === 'terminate' ? 143 : 1
  } finally {
    await closeSession(execution)
    await lifeLine.end()
    spool.close()
  }
}

function bringToLife(given: Execution, spool: Spool): LiveExecution {
  const { hello, env, log } = given
  const stop = createStopSwitch()
  const masker = createMasker(secretsOf(given))
  const onFailure = (error: unknown) => stop.stop({ kind: 'break', error })
  const execution: LiveExecution = {
    ...given,
    events: createEventLog({ spool, masker, onFailure }),
    sender: startSender(given, { spool, onOver: (detail) => giveUp(execution, detail) }),
    masker,
    stop,
    messages: createTurnMessages(),
    calls: createWakeCalls(),
    kept: openKeptWork(spool.folder, (error) => log.warn({ err: error }, 'work cannot be kept on the local disk')),
    taskEnv: taskEnvironment(env, hello),
    workspace: undefined,
    session: undefined,
    unsaved: new Set(),
    isLeaving: false,
  }
  return execution
}

/** A harness that hangs must not keep the process. */
const closeGraceMs = 5_000

async function closeSession({ session }: LiveExecution): Promise<void> {
  if (!session) return
  const closed = new AbortController()
  const closing = session.close().finally(() => closed.abort())
  await Promise.race([closing, sleep(closeGraceMs, closed.signal)])
}

/** Nobody wants to hear of this execution any more. */
function giveUp({ stop, log, isLeaving }: LiveExecution, detail: string): void {
  if (stop.reason?.kind === 'abandon') return
  if (isLeaving) log.debug(`the execution is over: ${detail}`)
  else log.warn({ why: 'superseded' }, `this execution ends: ${detail}`)
  stop.stop({ kind: 'abandon', why: 'superseded', detail })
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

function reportHello({ startedAt, notices = [], events }: LiveExecution): void {
  const duration = Date.now() - startedAt.getTime()
  events.emit({
    type: 'setup_step',
    data: { step: 'hello', status: 'completed', started_at: startedAt.toISOString(), duration_ms: duration },
  })
  for (const text of notices) notice(events, 'info', text)
}
