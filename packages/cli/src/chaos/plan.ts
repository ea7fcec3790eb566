import { createHash } from 'node:crypto'
import { type Random, randomStream } from './random.ts'

/**
 * What a round does, decided by its seed alone: the runs with everything that people say to them, and the faults in their order. Times are gaps,
 * and targets are numbers that are counted off among what is alive in that moment: a seed means the same plan, not the same microseconds.
 */
export interface RoundPlan {
  seed: string
  servers: number
  /** Of the workers. */
  backend: RoundBackend
  kinds: readonly FaultKind[]
  runs: RunPlan[]
  faults: Fault[]
  /** Which of the servers hear nothing of each other but by looking. */
  withoutNotify: number[]
}

export type RoundBackend = 'direct' | 'docker'

/** `engine`: only where the round has one of its own. */
export const faultKinds = ['worker', 'agent', 'server', 'database', 'network', 'engine'] as const
export type FaultKind = (typeof faultKinds)[number]

/**
 * What one command of an agent does. `daemon` leaves its process group and session, `clean-daemon` its environment too, `background` is left
 * running by its tool; `ask` ends the turn with a question.
 */
export type StepKind = 'beat' | 'write' | 'long' | 'fail' | 'daemon' | 'clean-daemon' | 'background' | 'ask'

export interface RunPlan {
  index: number
  /** After the run before it. */
  afterMs: number
  workerHost?: string
  idleMinutes: 0 | 1
  turns: TurnPlan[]
  /** Asked when this many calls of the turn were seen, or it is at rest. */
  cancel?: { turn: number; afterCalls: number }
}

export interface TurnPlan {
  steps: StepKind[]
  /** `at-once`: said while the turn before is still at work; `at-end`: when no agent of the run is there any more. */
  begins: 'at-rest' | 'at-once' | 'at-end'
  said: { afterCalls: number; mode: 'steer' | 'interrupt' }[]
}

export type Fault =
  /** `kill-starting`: in the first moments of the next task that it takes. */
  | {
      afterMs: number
      target: 'worker'
      how: 'kill' | 'kill-starting' | 'stop' | 'term' | 'leave'
      index: number
      forMs: number
    }
  | { afterMs: number; target: 'agent'; how: 'kill' | 'stop'; index: number; forMs: number }
  /** `outage`: all of them are frozen at once. */
  | { afterMs: number; target: 'server'; how: 'kill' | 'stop' | 'term' | 'outage'; index: number; forMs: number }
  | { afterMs: number; target: 'database'; how: 'kill' | 'stop' | 'restart'; index: number; forMs: number }
  /** `keepsContainers`: while it is away next time. Those that run when it comes back without are ended by it. */
  | {
      afterMs: number
      target: 'engine'
      how: 'kill' | 'stop' | 'restart'
      index: number
      forMs: number
      keepsContainers: boolean
    }
  | { afterMs: number; target: 'network'; link: LinkName; how: TroubleKind; index: number; forMs: number }

/** The four stretches of network: workers, agents, people with viewers, and servers to the database. */
export const linkNames = ['workers', 'agents', 'people', 'database'] as const
export type LinkName = (typeof linkNames)[number]
export const troubleKinds = ['delay', 'drop', 'half-open', 'cut'] as const
export type TroubleKind = (typeof troubleKinds)[number]

/** Two workers share the first id, the last two share a folder. */
export const workerIds = ['chaos-a', 'chaos-a', 'chaos-b'] as const

const stepWeights: readonly (readonly [StepKind, number])[] = [
  ['beat', 34],
  ['write', 26],
  ['long', 10],
  ['fail', 6],
  ['daemon', 8],
  ['clean-daemon', 6],
  ['background', 10],
]

export function planRound(wish: {
  seed: string
  runs: number
  servers: number
  kinds: readonly FaultKind[]
  backend?: RoundBackend
}): RoundPlan {
  const { seed, servers, kinds, backend = 'direct' } = wish
  const random = randomStream(seed, 'servers')
  const runs = Array.from({ length: wish.runs }, (_, index) => planRun(randomStream(seed, `run ${index}`), index))
  // With one server alone there is nobody whose notifications could be missed.
  const withoutNotify = servers > 1 ? [random.whole(0, servers - 1)] : []
  const faults = planFaults(randomStream(seed, 'faults'), wish)
  return { seed, servers, backend, kinds, runs, faults, withoutNotify }
}

/** Two rounds with the same one do the same. */
export function planHash(plan: RoundPlan): string {
  return createHash('sha256').update(JSON.stringify(plan)).digest('hex').slice(0, 12)
}

function planRun(random: Random, index: number): RunPlan {
  const count = random.pick([
    [1, 40],
    [2, 35],
    [3, 25],
  ])
  const idleMinutes = random.chance(0.3) ? 1 : 0
  const turns = Array.from({ length: count }, (_, turn) => planTurn(random, turn, idleMinutes))
  const host = random.pick([
    [undefined, 60],
    ['chaos-a', 25],
    ['chaos-b', 15],
  ])
  const isCancelled = random.chance(0.2)
  const cancel = { turn: random.whole(0, count - 1), afterCalls: random.whole(0, 2) }
  return {
    index,
    afterMs: random.whole(50, 900),
    ...(host === undefined ? {} : { workerHost: host }),
    idleMinutes,
    turns,
    ...(isCancelled ? { cancel } : {}),
  }
}

function planTurn(random: Random, turn: number, idleMinutes: number): TurnPlan {
  const steps = Array.from({ length: random.whole(1, 4) }, () => random.pick(stepWeights))
  if (random.chance(0.12)) steps.push('ask')
  const said = random.chance(0.3)
    ? [{ afterCalls: random.whole(1, 2), mode: random.chance(0.6) ? ('steer' as const) : ('interrupt' as const) }]
    : []
  const begins = random.pick<TurnPlan['begins']>([
    ['at-once', 35],
    ['at-rest', 40],
    // Nobody waits for the end of an idle window.
    [idleMinutes === 0 ? 'at-end' : 'at-rest', 25],
  ])
  return { steps, begins: turn === 0 ? 'at-rest' : begins, said }
}

function planFaults(random: Random, { runs, kinds }: { runs: number; kinds: readonly FaultKind[] }): Fault[] {
  const count = kinds.length === 0 ? 0 : Math.max(kinds.length * 2, runs)
  const faults: Fault[] = []
  // Each kind in turn, in an order of its own every time: a small round has them all.
  while (faults.length < count) for (const kind of random.shuffled(kinds)) faults.push(planFault(random, kind))
  return faults.slice(0, count)
}

function planFault(random: Random, target: FaultKind): Fault {
  const common = { afterMs: random.whole(600, 3_500), index: random.whole(0, 999) }
  // Mostly a hiccup, now and then longer than any lease.
  const frozen = { ...common, forMs: random.chance(0.75) ? random.whole(500, 6_000) : random.whole(18_000, 26_000) }
  const brief = { ...common, forMs: random.whole(500, 6_000) }
  switch (target) {
    case 'worker': {
      const how = random.pick([
        ['kill', 30],
        ['kill-starting', 20],
        ['stop', 25],
        ['term', 12],
        ['leave', 13],
      ] as const)
      return { target, how, ...frozen }
    }
    case 'agent': {
      const how = random.pick([
        ['kill', 60],
        ['stop', 40],
      ] as const)
      return { target, how, ...frozen }
    }
    case 'server': {
      const how = random.pick([
        ['kill', 45],
        ['stop', 20],
        ['term', 20],
        ['outage', 15],
      ] as const)
      return { target, how, ...(how === 'outage' ? frozen : brief) }
    }
    case 'database': {
      const how = random.pick([
        ['kill', 45],
        ['stop', 25],
        ['restart', 30],
      ] as const)
      return { target, how, ...brief }
    }
    case 'network': {
      const link = random.pick(linkNames.map((name) => [name, 1] as const))
      const how = random.pick(troubleKinds.map((kind) => [kind, 1] as const))
      // A connection to the database that only hangs holds the locks of its transactions: no test of ours, and nothing moves meanwhile.
      return { target, link, how, ...(link === 'database' ? brief : frozen) }
    }
    case 'engine': {
      const how = random.pick([
        ['kill', 45],
        ['stop', 25],
        ['restart', 30],
      ] as const)
      // Seconds of nothing, and all containers gone half of the time: between them something has to get done.
      return { target, how, ...brief, afterMs: random.whole(3_000, 9_000), keepsContainers: random.chance(0.5) }
    }
    default:
      return target satisfies never
  }
}
