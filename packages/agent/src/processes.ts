import { endProcessTree, findProcesses } from '@openoz/machine'
import type { LiveExecution } from './live-execution.ts'
import { isLocal, markerName } from './task-environment.ts'

export const processGraceMs = 2_000

/** Everything that the execution has started and that still runs, also what left its parents: daemons, and what a killed tool had started. */
export async function endProcesses(
  taskEnv: NodeJS.ProcessEnv,
  { graceMs = processGraceMs }: { graceMs?: number } = {},
): Promise<void> {
  await endProcessTree({ marker: markerOf(taskEnv) }, graceMs)
}

/**
 * Another execution may be at work: nothing of this one is given time to end. Not in a person's own folder, where no other one ever begins; and who
 * has said goodbye has ended everything before.
 */
export function mustEndAtOnce({ stop, hello, isLeaving }: LiveExecution): boolean {
  const { reason } = stop
  if (reason?.kind !== 'abandon' || isLocal(hello) || isLeaving) return false
  return reason.why === 'superseded' || reason.graceMs === 0
}

export async function hasProcesses(taskEnv: NodeJS.ProcessEnv): Promise<boolean> {
  return (await findProcesses({ marker: markerOf(taskEnv) })).length > 0
}

function markerOf(taskEnv: NodeJS.ProcessEnv): string {
  return `${markerName}=${taskEnv[markerName]}`
}
