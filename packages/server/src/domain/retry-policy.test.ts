import { expect, test } from 'vitest'
import { type Failure, maxRetryDelaySeconds, retryDecision, type TurnSoFar } from './retry-policy.ts'

const turn: TurnSoFar = { isLocal: false, retries: {}, maxAttempts: null, deadWorkers: [], poisonDeaths: 3 }
const failed = (reason: Failure['reason'], more: Partial<Failure> = {}): Failure => ({
  reason,
  detail: 'Details.',
  exitCode: null,
  diedWithWorker: false,
  ...more,
})

/** `attempt of n in seconds`, or how it ends. */
function inShort(soFar: Partial<TurnSoFar>, failure: Failure): string {
  const decision = retryDecision({ ...turn, ...soFar }, failure)
  return decision.kind === 'retry'
    ? `${decision.attempt} of ${decision.of} in ${decision.delaySeconds}`
    : `${decision.outcome} ${decision.failureReason} ${decision.code}`
}

test.each([
  ['lost, for the first time', {}, failed('lost'), '2 of 3 in 0'],
  ['lost, for the last time', { retries: { lost: 2 } }, failed('lost'), 'ERROR lost resource_unavailable'],
  ['lost after other failures', { retries: { worker_died: 2 } }, failed('lost'), '4 of 5 in 0'],
  ['its worker died', {}, failed('worker_died', { diedWithWorker: true }), '2 of 4 in 2'],
  [
    'its worker died again',
    { retries: { worker_died: 1 } },
    failed('worker_died', { diedWithWorker: true }),
    '3 of 4 in 4',
  ],
  ['it gave up its lease', {}, failed('lease_lost', { exitCode: 75 }), '2 of 4 in 0'],
  ['it never said hello', {}, failed('start_timeout'), '2 of 2 in 10'],
  ['killed', {}, failed('agent_invocation', { exitCode: 137 }), '2 of 3 in 2'],
  ['killed twice', { retries: { agent_invocation: 1 } }, failed('agent_invocation', { exitCode: 137 }), '3 of 3 in 4'],
  ['ended by itself', {}, failed('agent_invocation', { exitCode: 1 }), 'ERROR agent_invocation internal_error'],
  ['the user’s side', {}, failed('setup_command'), 'FAILED setup_command environment_setup_failed'],
  [
    'never retried, however often is asked for',
    { maxAttempts: 10 },
    failed('setup_command'),
    'FAILED setup_command environment_setup_failed',
  ],
  ['one attempt asked for', { maxAttempts: 1 }, failed('lost'), 'ERROR lost resource_unavailable'],
  ['more asked for than the table has', { maxAttempts: 5, retries: { lost: 3 } }, failed('lost'), '5 of 5 in 0'],
  ['as many as asked for', { maxAttempts: 5, retries: { lost: 4 } }, failed('lost'), 'ERROR lost resource_unavailable'],
  [
    'asked for over all reasons',
    { maxAttempts: 3, retries: { lost: 1, worker_died: 1 } },
    failed('agent_invocation', { exitCode: 137 }),
    'ERROR agent_invocation internal_error',
  ],
  ['a local run', { isLocal: true }, failed('lost'), 'ERROR lost resource_unavailable'],
  [
    'poison',
    { deadWorkers: ['a', 'b', 'a'] },
    failed('worker_died', { diedWithWorker: true }),
    'ERROR run_poison internal_error',
  ],
  [
    'poison before more attempts',
    { deadWorkers: ['a', 'b', 'a'], maxAttempts: 10 },
    failed('lost', { diedWithWorker: true }),
    'ERROR run_poison internal_error',
  ],
  ['deaths before, but not this time', { deadWorkers: ['a', 'b', 'a'] }, failed('lost'), '2 of 3 in 0'],
] as const)('%s', (_, soFar, failure, expected) => {
  expect(inShort(soFar as Partial<TurnSoFar>, failure)).toBe(expected)
})

test('the delay doubles up to its limit, for each reason by itself', () => {
  const delays = Array.from({ length: 9 }, (_, tried) => {
    const decision = retryDecision(
      { ...turn, maxAttempts: 10, retries: { container_start: tried } },
      failed('container_start'),
    )
    return decision.kind === 'retry' ? decision.delaySeconds : undefined
  })
  expect(delays).toEqual([
    10,
    20,
    40,
    80,
    160,
    maxRetryDelaySeconds,
    maxRetryDelaySeconds,
    maxRetryDelaySeconds,
    maxRetryDelaySeconds,
  ])
  const other = retryDecision({ ...turn, maxAttempts: 10, retries: { container_start: 4 } }, failed('worker_died'))
  expect(other).toMatchObject({ delaySeconds: 2, retries: { container_start: 4, worker_died: 1 } })
})

test('a poisoned run names the workers that it took with it', () => {
  const decision = retryDecision(
    { ...turn, deadWorkers: ['a', 'b', 'a'] },
    failed('worker_died', { diedWithWorker: true }),
  )
  expect(decision.sentence).toBe(
    'The run’s agent died together with its worker again and again. 3 times, on workers a and b. It is not offered again. Details.',
  )
})
