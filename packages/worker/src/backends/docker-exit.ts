import { constants } from 'node:os'
import { describeError } from '@openoz/protocol'
import type { ContainerState } from '../engine/containers.ts'
import { exitOfCode } from '../shim-process.ts'
import { TaskFailure } from './backend.ts'
import type { AgentEnd } from './ended-task.ts'

/**
 * What the end of a container says of its agent. Codes alone do not tell: 137 is an agent out of memory, `docker kill`, and a program that ends so by
 * itself; and the engine calls a container out of memory when any process in it was, also when the agent went on and ended well.
 */
export interface SeenByUs {
  /** We have asked, or made, it end. */
  isStopped: boolean
  /** The engine was away since the container was last seen at work, or has gone in the moment of its end. */
  wasEngineAway: boolean
}

const { SIGKILL, SIGTERM } = constants.signals

/** `state`: undefined when there is no such container any more. */
export function exitOf(state: ContainerState | undefined, { isStopped, wasEngineAway }: SeenByUs): AgentEnd {
  if (!state) return { exit: { type: 'vanished' } }
  const { ExitCode: code, OOMKilled: hadOomKill } = state
  const exit = exitOfCode(code)
  if (hadOomKill && code === 128 + SIGKILL) return { exit, outOfMemory: 'task' }
  // An engine that stops ends what it runs, and so does one that comes back without `live-restore`.
  if (wasEngineAway && !isStopped && isEndedFromOutside(state)) return { exit, isEngineStopped: true }
  return { exit }
}

/** What an engine calls the end of a container that it did not see: the machine went down with both. */
const unseenEnd = 255

/** As agents do not end by themselves. */
export function isEndedFromOutside({ ExitCode: code }: ContainerState): boolean {
  return code === 128 + SIGKILL || code === 128 + SIGTERM || code === unseenEnd
}

/** Of a container that was created and cannot be started, from the words of the engine. */
export function startFailure(says: string, { runtime, network }: { runtime?: string; network: string }): TaskFailure {
  const problem = says.replaceAll(/\s+/g, ' ').trim().slice(0, 1_000)
  const lower = problem.toLowerCase()
  if (runtime !== undefined && /unknown runtime|invalid runtime name/.test(lower)) {
    const message = describeError('container_runtime_missing', { runtime, known: 'others' })
    return new TaskFailure('container_start', message, { code: 'container_runtime_missing' })
  }
  if (/network \S+ not found/.test(lower)) {
    const message = describeError('network_missing', { network })
    return new TaskFailure('container_start', message, { code: 'network_missing' })
  }
  return new TaskFailure('container_start', `The container could not be started: ${problem}`)
}

/** Of a container that cannot be created. */
export function createFailure(says: string): TaskFailure {
  const problem = says.replaceAll(/\s+/g, ' ').trim().slice(0, 1_000)
  const missing = /bind source path does not exist: (\S+)/.exec(problem)?.[1]
  if (missing !== undefined) {
    const message = describeError('bind_source_missing', { path: missing, spec: missing })
    return new TaskFailure('volume_mount', message, { code: 'bind_source_missing' })
  }
  const reason = /invalid mount|invalid volume|mount config|mount denied|duplicate mount point/i.test(problem)
    ? 'volume_mount'
    : 'container_create'
  return new TaskFailure(reason, `The container could not be created: ${problem}`)
}
