import { endProcessTree, findProcesses } from '@openoz/machine'
import { markerName } from './task-environment.ts'

const processGraceMs = 2_000

/** Everything that the execution has started and that still runs, also what left its parents: daemons, and what a killed tool had started. */
export async function endProcesses(
  taskEnv: NodeJS.ProcessEnv,
  { graceMs = processGraceMs }: { graceMs?: number } = {},
): Promise<void> {
  await endProcessTree({ marker: markerOf(taskEnv) }, graceMs)
}

export async function hasProcesses(taskEnv: NodeJS.ProcessEnv): Promise<boolean> {
  return (await findProcesses({ marker: markerOf(taskEnv) })).length > 0
}

function markerOf(taskEnv: NodeJS.ProcessEnv): string {
  return `${markerName}=${taskEnv[markerName]}`
}
