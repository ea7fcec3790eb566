import { createEventPost, type EventSender, type Spool, startEventSender } from '@openoz/machine'
import type { AgentCommand } from '@openoz/protocol'
import { followCommands } from './command-inbox.ts'
import type { Execution, LiveExecution } from './live-execution.ts'
import { isLocal } from './task-environment.ts'

/** What ties an execution to its control plane and to whoever started it: events and renewals out, commands in, signals. Each of them can stop it. */
export interface LifeLine {
  end(): Promise<void>
}

interface Tied extends Pick<LiveExecution, 'stop' | 'messages' | 'calls' | 'sender' | 'lease'> {
  /** The control plane says that the execution is over. */
  onOver: (detail: string) => void
}

/** After SIGTERM supervisors wait 10 s before they kill: until then the workspace must be saved. */
const terminationSaveMs = 5_000

/** Sends what is in the spool; ends with `stop()`. */
export function startSender(
  { hello, helloSentAt, dialer, executionToken, log }: Execution,
  { spool, onOver }: { spool: Spool; onOver: (detail: string) => void },
): EventSender {
  const { renew_every_ms: renewEveryMs } = hello.limits
  spool.acknowledge(hello.acked_n)
  const sender = startEventSender({
    spool,
    post: createEventPost(dialer, () => executionToken),
    log,
    renewEveryMs,
    // A lease must not end between two tries.
    backoff: { baseMs: Math.min(250, renewEveryMs), maxMs: renewEveryMs },
    acknowledgedSendAt: helloSentAt,
    onSuperseded: () => onOver('the control plane has given it up'),
  })
  void sender.ended.then((end) => {
    if (end.kind === 'refused') onOver(end.message)
  })
  return sender
}

export function holdLifeLine(execution: Execution, tied: Tied): LifeLine {
  const { hello, channel, log, signal } = execution
  const { stop, sender, lease, onOver } = tied
  const kind = isLocal(hello) ? 'interrupt' : 'terminate'
  const onTerminate = () => stop.stop({ kind, deadline: AbortSignal.timeout(terminationSaveMs) })
  signal.addEventListener('abort', onTerminate, { once: true })
  if (signal.aborted) onTerminate()

  const inboxEnd = new AbortController()
  const inbox = followCommands({
    channel,
    signal: inboxEnd.signal,
    log,
    onRefused: onOver,
    onCommand: (command) => obey(command, tied),
  })
  return {
    async end() {
      lease.end()
      signal.removeEventListener('abort', onTerminate)
      inboxEnd.abort()
      await inbox
      await sender.stop()
    },
  }
}

function obey(command: AgentCommand, { stop, messages, calls, onOver }: Tied): void {
  // A newer control plane may know commands that we do not; those are acknowledged and left alone.
  switch (command.type) {
    case 'cancel':
      stop.stop({ kind: 'cancel' })
      break
    case 'stop':
      onOver(command.payload.reason)
      break
    case 'message':
      messages.take(command.payload)
      break
    case 'turn':
      calls.call('turn')
      break
    case 'end_idle':
      calls.call('end')
      break
    default:
      command satisfies never
  }
}
