import { basename, dirname } from 'node:path'
import { checkEffects, checkSteps, checkWorkspaces } from './checks-of-effects.ts'
import { checkCheckpoints, checkHoles, checkViewers } from './checks-of-log.ts'
import { checkExecutions, checkFences, checkLost, checkOutcomes, checkSaid, checkStuck } from './checks-of-runs.ts'
import type { Evidence } from './evidence.ts'

/** What was found wrong. `docs/chaos.md` says what each check proves. */
export interface Finding {
  check: CheckName
  /** Absent: it is about the machine. */
  runId?: string
  detail: string
}

export const checkNames = [
  'lost',
  'stuck',
  'outcome',
  'said',
  'double',
  'effects',
  'steps',
  'workspace',
  'holes',
  'viewers',
  'checkpoints',
  'fence',
  'left_over',
  'crashed',
] as const
export type CheckName = (typeof checkNames)[number]

export type Check = (evidence: Evidence) => Finding[]

const checks: Check[] = [
  checkLost,
  checkStuck,
  checkOutcomes,
  checkSaid,
  checkExecutions,
  checkFences,
  checkEffects,
  checkSteps,
  checkWorkspaces,
  checkHoles,
  checkViewers,
  checkCheckpoints,
  checkLeftOver,
  checkCrashes,
]

/** Pure: the same evidence gives the same findings. */
export function verify(evidence: Evidence): Finding[] {
  return checks.flatMap((check) => check(evidence))
}

function checkLeftOver({ leftOver, impolite, executions }: Evidence): Finding[] {
  const lost = new Set(executions.filter(({ state }) => state === 'lost').map(({ id }) => id))
  // The only copy of what an execution did whose run went on without it: kept, since nobody but a person can say what it is worth.
  const isKeptWork = (name: string) => /saved-workspaces$/.test(dirname(name)) && lost.has(basename(name))
  const left = leftOver.filter(({ what, name }) => what !== 'file' || !isKeptWork(name))
  return [
    ...left.map(({ what, name }) => ({ check: 'left_over' as const, detail: `${what} ${name}` })),
    ...impolite.map((name) => ({ check: 'left_over' as const, detail: `${name} did not end when it was asked to` })),
  ]
}

/** A server may end when its database does not answer at its start; nothing ever ends without a word, and in calm nothing ends at all. */
function checkCrashes({ plan, crashes }: Evidence): Finding[] {
  return crashes
    .filter(({ signal }) => signal !== null || plan.kinds.length === 0)
    .map(({ name, code, signal }) => ({ check: 'crashed', detail: `${name} ended by itself (${signal ?? code})` }))
}
