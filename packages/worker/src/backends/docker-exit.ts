import { constants } from 'node:os'
import { describeError, type ReportedFailureReason } from '@openoz/protocol'
import type { ContainerState } from '../engine/containers.ts'
import type { EngineAddress } from '../engine/engine-address.ts'
import { type EngineFailure, engineProblem } from '../engine/engine-failure.ts'
import { exitOfCode } from '../shim-process.ts'
import { TaskFailure } from './backend.ts'
import type { AgentEnd } from './ended-task.ts'

/**
 * What the end of a container says of its agent. The engine calls a container out of memory when any process in it was, also when the agent went on and
 * ended well; and 137 is `docker kill` as well as a program that ended so. Our guard tells them apart by its own code.
 */
export interface SeenByUs {
  /** We have asked, or made, it end. */
  isStopped: boolean
  /** The engine was away since the container was last seen at work, or has gone in the moment of its end. */
  wasEngineAway: boolean
  /** The engine has told of a SIGKILL that somebody asked it for. */
  wasKilled: boolean
  /** Its agent ran under `oz-task`. */
  isGuarded: boolean
}

/** What `oz-task` ends with when its agent was killed and it was not: whoever kills a container kills both. */
const agentKilledCode = 79

const { SIGKILL, SIGTERM } = constants.signals

/** `state`: undefined when there is no such container any more. */
export function exitOf(state: ContainerState | undefined, seen: SeenByUs): AgentEnd {
  if (!state) return { exit: { type: 'vanished' } }
  const { isStopped, wasEngineAway, wasKilled, isGuarded } = seen
  const exit = exitOfCode(exitCodeOf(state))
  // An engine that stops ends what it runs, and so does one that comes back without `live-restore`.
  if (wasEngineAway && !isStopped && isEndedFromOutside(state)) return { exit, isEngineStopped: true }
  // Last: what was killed for another reason may have lost a tool to the kernel before.
  const isAgentKilled = isGuarded ? state.ExitCode === agentKilledCode : state.ExitCode === 128 + SIGKILL && !wasKilled
  if (state.OOMKilled && isAgentKilled && !isStopped) return { exit, outOfMemory: 'task' }
  return { exit }
}

/** Of the agent, as a shell counts it. */
export function exitCodeOf({ ExitCode: code }: ContainerState): number {
  return code === agentKilledCode ? 128 + SIGKILL : code
}

/** What an engine calls the end of a container that it did not see: the machine went down with both. */
const unseenEnd = 255

/** As agents do not end by themselves. */
export function isEndedFromOutside({ ExitCode: code }: ContainerState): boolean {
  return code === 128 + SIGKILL || code === 128 + SIGTERM || code === unseenEnd
}

/** Of a call of the engine on the way to a container, where nothing better is known than what the engine says. */
export function engineTaskFailure(
  error: EngineFailure,
  address: EngineAddress,
  reason: ReportedFailureReason = 'container_create',
): TaskFailure {
  const { message, code } = engineProblem(error, address)
  return new TaskFailure(reason, message, { code, cause: error })
}

/** Of a container that was created and cannot be started, from the words of the engine. */
export function startFailure(
  error: EngineFailure,
  { runtime, network, address }: { runtime?: string; network: string; address: EngineAddress },
): TaskFailure {
  const lower = error.engineSays.toLowerCase()
  if (runtime !== undefined && /unknown runtime|invalid runtime name/.test(lower)) {
    const message = describeError('container_runtime_missing', { runtime, known: 'others' })
    return new TaskFailure('container_start', message, { code: 'container_runtime_missing' })
  }
  // One of the task’s own is nothing that an operator makes: the engine names it.
  if (network !== 'isolated' && /network \S+ not found/.test(lower)) {
    const message = describeError('network_missing', { network })
    return new TaskFailure('container_start', message, { code: 'network_missing' })
  }
  return engineTaskFailure(error, address, 'container_start')
}

/** Of a container that cannot be created. */
export function createFailure(error: EngineFailure, address: EngineAddress): TaskFailure {
  const problem = error.engineSays
  const missing = /bind source path does not exist: (\S+)/.exec(problem)?.[1]
  if (missing !== undefined) {
    const message = describeError('bind_source_missing', { path: missing, spec: missing })
    return new TaskFailure('volume_mount', message, { code: 'bind_source_missing' })
  }
  const reason = /invalid mount|invalid volume|mount config|mount denied|duplicate mount point/i.test(problem)
    ? 'volume_mount'
    : 'container_create'
  return engineTaskFailure(error, address, reason)
}
