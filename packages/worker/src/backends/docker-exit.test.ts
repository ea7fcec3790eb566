import { expect, test } from 'vitest'
import type { ContainerState } from '../engine/containers.ts'
import { createFailure, exitOf, startFailure } from './docker-exit.ts'

const by = { isStopped: false, wasEngineAway: false }

function state(ExitCode: number, more: Partial<ContainerState> = {}): ContainerState {
  const dates = { StartedAt: '2026-01-01T00:00:00Z', FinishedAt: '2026-01-01T00:01:00Z' }
  return { Status: 'exited', Running: false, OOMKilled: false, Pid: 0, ExitCode, Error: '', ...dates, ...more }
}

test.each([
  ['an agent that ended well', state(0), by, { exit: { type: 'exited', code: 0 } }],
  [
    'one that was killed for want of memory',
    state(137, { OOMKilled: true }),
    by,
    { exit: { type: 'killed', signal: 9 }, outOfMemory: 'task' },
  ],
  ['one that went on after a tool of it was', state(3, { OOMKilled: true }), by, { exit: { type: 'exited', code: 3 } }],
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
    { isStopped: true, wasEngineAway: true },
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

test('what the engine says of a start becomes what to do about it', () => {
  const options = { runtime: 'runsc', network: 'build' }
  expect(startFailure('Unknown runtime specified runsc', options)).toMatchObject({ code: 'container_runtime_missing' })
  expect(startFailure('network build not found', options)).toMatchObject({
    code: 'network_missing',
    reason: 'container_start',
  })
  const missing = startFailure('exec: "/agent/bin/oz-task": stat: no such file', options)
  expect(missing).toMatchObject({ reason: 'container_start', code: undefined })
  expect(missing.message).toContain('no such file')
})

test('a folder that is not there is the volume’s failure, everything else the container’s', () => {
  const missing = 'invalid mount config for type "bind": bind source path does not exist: /srv/none'
  expect(createFailure(missing)).toMatchObject({ reason: 'volume_mount', code: 'bind_source_missing' })
  expect(createFailure(missing).message).toContain('/srv/none')
  expect(createFailure('Duplicate mount point: /data')).toMatchObject({ reason: 'volume_mount' })
  expect(createFailure('No such image: sha256:1')).toMatchObject({ reason: 'container_create' })
})
