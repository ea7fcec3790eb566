import { expect, test } from 'vitest'
import type { ContainerState } from '../engine/containers.ts'
import { EngineFailure } from '../engine/engine-failure.ts'
import { createFailure, exitOf, startFailure } from './docker-exit.ts'

const by = { isStopped: false, wasEngineAway: false, wasKilled: false, isGuarded: true }
const foreign = { ...by, isGuarded: false }

function state(ExitCode: number, more: Partial<ContainerState> = {}): ContainerState {
  const dates = { StartedAt: '2026-01-01T00:00:00Z', FinishedAt: '2026-01-01T00:01:00Z' }
  return { Status: 'exited', Running: false, OOMKilled: false, Pid: 0, ExitCode, Error: '', ...dates, ...more }
}

test.each([
  ['an agent that ended well', state(0), by, { exit: { type: 'exited', code: 0 } }],
  [
    'one that was killed for want of memory',
    state(79, { OOMKilled: true }),
    by,
    { exit: { type: 'killed', signal: 9 }, outOfMemory: 'task' },
  ],
  [
    'one of somebody else that was killed for want of memory',
    state(137, { OOMKilled: true }),
    foreign,
    { exit: { type: 'killed', signal: 9 }, outOfMemory: 'task' },
  ],
  ['one that somebody killed alone', state(79), by, { exit: { type: 'killed', signal: 9 } }],
  [
    'one whose container was killed, while nobody looked, after a tool of it had no memory',
    state(137, { OOMKilled: true }),
    by,
    { exit: { type: 'killed', signal: 9 } },
  ],
  ['one that went on after a tool of it was', state(3, { OOMKilled: true }), by, { exit: { type: 'exited', code: 3 } }],
  [
    'one that somebody killed after a tool of it had no memory',
    state(137, { OOMKilled: true }),
    { ...foreign, wasKilled: true },
    { exit: { type: 'killed', signal: 9 } },
  ],
  [
    'one whose engine stopped after a tool of it had no memory',
    state(137, { OOMKilled: true }),
    { ...by, wasEngineAway: true },
    { exit: { type: 'killed', signal: 9 }, isEngineStopped: true },
  ],
  ['one that somebody killed', state(137), by, { exit: { type: 'killed', signal: 9 } }],
  ['one that lost its lease', state(75), by, { exit: { type: 'exited', code: 75 } }],
  [
    'one whose engine stopped',
    state(143),
    { ...by, wasEngineAway: true },
    { exit: { type: 'killed', signal: 15 }, isEngineStopped: true },
  ],
  [
    'one whose machine went down',
    state(255),
    { ...by, wasEngineAway: true },
    { exit: { type: 'exited', code: 255 }, isEngineStopped: true },
  ],
  [
    'one that we ended while the engine was away',
    state(137),
    { ...by, isStopped: true, wasEngineAway: true },
    { exit: { type: 'killed', signal: 9 } },
  ],
  [
    'one that ended by itself while it was',
    state(0),
    { ...by, wasEngineAway: true },
    { exit: { type: 'exited', code: 0 } },
  ],
  ['one that is not there any more', undefined, by, { exit: { type: 'vanished' } }],
])('%s is told as that', (_, found, seen, end) => {
  expect(exitOf(found, seen)).toEqual(end)
})

const address = { kind: 'unix', socketPath: '/x.sock', display: 'unix:///x.sock', source: 'the test' } as const
const says = (text: string) => new EngineFailure('POST /containers/x', text, { status: 500 })

test('what the engine says of a start becomes what to do about it', () => {
  const options = { runtime: 'runsc', network: 'build', address }
  expect(startFailure(says('Unknown runtime specified runsc'), options)).toMatchObject({
    code: 'container_runtime_missing',
  })
  expect(startFailure(says('network build not found'), options)).toMatchObject({
    code: 'network_missing',
    reason: 'container_start',
  })
  // The task’s own, which no operator can make.
  const pruned = startFailure(says('network oz-1 not found'), { network: 'isolated', address })
  expect(pruned).toMatchObject({ code: 'engine_failed', message: expect.stringContaining('network oz-1 not found') })
  const missing = startFailure(says('exec: "/agent/bin/oz-task": stat: no such file'), options)
  expect(missing).toMatchObject({ reason: 'container_start', code: 'engine_failed' })
  expect(missing.message).toMatch(/no such file\. The engine’s own log/)
})

test('a folder that is not there is the volume’s failure, everything else the container’s', () => {
  const failure = (text: string) => createFailure(says(text), address)
  const missing = failure('invalid mount config for type "bind": bind source path does not exist: /srv/none')
  expect(missing).toMatchObject({ reason: 'volume_mount', code: 'bind_source_missing' })
  expect(missing.message).toContain('/srv/none')
  expect(failure('Duplicate mount point: /data')).toMatchObject({ reason: 'volume_mount' })
  expect(failure('No such image: sha256:1')).toMatchObject({ reason: 'container_create', code: 'engine_failed' })
  expect(failure('mkdir /var/lib/docker/overlay2/x: no space left on device')).toMatchObject({
    ...{ reason: 'container_create', code: 'engine_disk_full' },
    message: expect.stringMatching(
      /^The disk of the Docker engine at unix:\/\/\/x\.sock is full: .*`docker system df`/,
    ),
  })
})
