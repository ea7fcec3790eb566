import { AppError } from '@openoz/protocol'

/**
 * Every time that ownership of a run depends on, in one table. All of them are measured on the database's clock, from the last acknowledged renewal
 * where nothing else is said, and are given back when the whole control plane was away (`domain/leases.ts`).
 */
export const leaseFlags = {
  leaseUnreachable: {
    flag: null,
    env: 'OZ_LEASE_UNREACHABLE',
    value: 'DURATION',
    default: '15s',
    description:
      'After this long without a renewal an execution is shown as unreachable; agents renew three times as often.',
  },
  leaseStop: {
    flag: null,
    env: 'OZ_LEASE_STOP',
    value: 'DURATION',
    default: '12m',
    description: 'After this long without a renewal an agent stops itself and its tools.',
  },
  leaseLost: {
    flag: null,
    env: 'OZ_LEASE_LOST',
    value: 'DURATION',
    default: '13m',
    description: 'After this long without a renewal an execution is lost, and may be tried again elsewhere.',
  },
  leaseConfirm: {
    flag: null,
    env: 'OZ_LEASE_CONFIRM',
    value: 'DURATION',
    default: '30s',
    description: 'How long a lost execution’s connected worker is waited for to say that its processes are gone.',
  },
  leaseSettled: {
    flag: null,
    env: 'OZ_LEASE_SETTLED',
    value: 'DURATION',
    default: '60s',
    description: 'After this long without a renewal an agent that rests, or has only to end, counts as gone.',
  },
  leaseOutage: {
    flag: null,
    env: 'OZ_LEASE_OUTAGE',
    value: 'DURATION',
    default: '10s',
    description: 'A gap of the control plane’s own heartbeat longer than this is given back to every deadline.',
  },
  leaseOffer: {
    flag: null,
    env: 'OZ_LEASE_OFFER',
    value: 'DURATION',
    default: '30s',
    description: 'How long a worker may take to answer an offer.',
  },
  leaseLate: {
    flag: null,
    env: 'OZ_LEASE_LATE',
    value: 'DURATION',
    default: '15m',
    description: 'How long an execution that is over may still deliver what it did, as late evidence.',
  },
  startTimeout: {
    flag: null,
    env: 'OZ_START_TIMEOUT',
    value: 'DURATION',
    default: '40m',
    description:
      'How long a worker may take from its claim, or from the last step that it told of, to the agent’s hello.',
  },
  cancelGrace: {
    flag: null,
    env: 'OZ_CANCEL_GRACE',
    value: 'DURATION',
    default: '10s',
    description: 'How long a cancelled agent has to end politely before its worker ends it.',
  },
  localHello: {
    flag: null,
    env: 'OZ_LOCAL_HELLO',
    value: 'DURATION',
    default: '60s',
    description: 'How long a local run waits for its agent to begin.',
  },
  localCancel: {
    flag: null,
    env: 'OZ_LOCAL_CANCEL',
    value: 'DURATION',
    default: '30s',
    description: 'After this long without a renewal a local run that is cancelled ends.',
  },
  workerSilent: {
    flag: null,
    env: 'OZ_WORKER_SILENT',
    value: 'DURATION',
    default: '20s',
    description: 'After this long without a sign a worker’s connection is closed.',
  },
  poisonDeaths: {
    flag: null,
    env: 'OZ_POISON_DEATHS',
    value: 'N',
    default: '3',
    description: 'A run whose agent died together with its worker this often is not offered again.',
  },
} as const

export interface LeaseTimes {
  unreachableMs: number
  stopMs: number
  lostMs: number
  confirmMs: number
  settledMs: number
  outageMs: number
  offerMs: number
  lateMs: number
  startMs: number
  cancelGraceMs: number
  localHelloMs: number
  localCancelMs: number
  workerSilentMs: number
  poisonDeaths: number
}

interface Reader {
  duration(name: keyof typeof leaseFlags): number
  count(name: keyof typeof leaseFlags): number
}

/** Throws `option_invalid` where two times together would let two executions of a run work at once, or none ever begin. */
export function readLeaseTimes({ duration, count }: Reader): LeaseTimes {
  const times = {
    unreachableMs: duration('leaseUnreachable'),
    stopMs: duration('leaseStop'),
    lostMs: duration('leaseLost'),
    confirmMs: duration('leaseConfirm'),
    settledMs: duration('leaseSettled'),
    outageMs: duration('leaseOutage'),
    offerMs: duration('leaseOffer'),
    lateMs: duration('leaseLate'),
    startMs: duration('startTimeout'),
    cancelGraceMs: duration('cancelGrace'),
    localHelloMs: duration('localHello'),
    localCancelMs: duration('localCancel'),
    workerSilentMs: duration('workerSilent'),
    poisonDeaths: count('poisonDeaths'),
  }
  const { unreachableMs, stopMs, lostMs, settledMs, outageMs } = times
  if (!(unreachableMs < stopMs)) throw invalid('OZ_LEASE_STOP', 'it must be longer than OZ_LEASE_UNREACHABLE')
  // An agent must have stopped itself and its tools before another one is started: else both work at the same time.
  const stoppingMs = stoppingTimeMs(stopMs)
  if (lostMs < stopMs + stoppingMs)
    throw invalid(
      'OZ_LEASE_LOST',
      `it must be at least ${stoppingMs} ms longer than OZ_LEASE_STOP, for the agent to end in`,
    )
  if (settledMs < 2 * unreachableMs) throw invalid('OZ_LEASE_SETTLED', 'it must be at least twice OZ_LEASE_UNREACHABLE')
  // Else every beat is taken for the end of an outage, gives its time back, and nothing is ever over.
  const beatsMs = 3 * lookEveryMs(times)
  if (outageMs < beatsMs)
    throw invalid(
      'OZ_LEASE_OUTAGE',
      `it must be at least ${beatsMs} ms: the heartbeat comes every ${lookEveryMs(times)} ms`,
    )
  return times
}

/** A twelfth of the lease, and never less than two seconds: the default's minute. */
export function stoppingTimeMs(stopMs: number): number {
  return Math.max(2_000, Math.ceil(stopMs / 12))
}

function invalid(option: string, problem: string): AppError {
  return new AppError('option_invalid', { option, problem })
}

/** How often an agent renews, and a server what its workers hold: three times within the time after which an execution is shown as unreachable. */
export function renewEveryMs({ unreachableMs }: LeaseTimes): number {
  return Math.max(100, Math.min(5_000, Math.floor(unreachableMs / 3)))
}

/** How often servers look at leases. Every look asks the database: once a second, an idle `oz up` took more than 1 % of a core. */
export function lookEveryMs({ unreachableMs }: LeaseTimes): number {
  return Math.max(100, Math.min(2_000, Math.floor(unreachableMs / 7)))
}
