import { errorSpecs } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { troubles } from '../../packages/protocol/src/troubleshooting.ts'
import { read } from './documents.ts'

/** Where each trouble of the page is brought about and met: file, and words of the test's name. */
const reproducedBy: Record<string, [file: string, name: string]> = {
  'no-oz': ['packages/worker/src/run-worker.test.ts', 'a worker without oz does not start'],
  'workspaces-not-writable': [
    'packages/worker/src/run-worker.test.ts',
    'a workspace root that cannot be written keeps the worker from starting',
  ],
  'wrong-options': [
    'packages/worker/src/worker-config.test.ts',
    'the file of a backend that is not there yet is known',
  ],
  'engine-unreachable': [
    'test/docker/failures.test.ts',
    'a worker whose engine %s does not start, and says what to do',
  ],
  'engine-permission': ['test/docker/failures.test.ts', 'a worker whose engine %s does not start, and says what to do'],
  'engine-platform': ['test/docker/failures.test.ts', 'a worker whose engine %s does not start, and says what to do'],
  'engine-lacks': ['test/docker/container-life.test.ts', 'what cannot work is said before the first task: %o'],
  'no-way-to-the-control-plane': [
    'test/docker/remote-engine.test.ts',
    'on a machine that shares neither files nor loopback with the worker',
  ],
  'no-agent-bundle': ['packages/worker/src/bundle/find-bundle.test.ts', 'where there is none the places are named'],
  service: ['packages/cli/src/service/worker-service.test.ts', 'what would not work as a service is refused'],
  'key-refused': [
    'packages/worker/src/run-worker.test.ts',
    'a worker that is refused with %s says why and ends with 1',
  ],
  unreachable: ['packages/worker/src/connection.test.ts', 'no outbound network is told apart by what failed'],
  'websocket-blocked': ['packages/worker/src/connection.test.ts', 'a network that passes HTTP but no WebSocket'],
  'connection-details': ['packages/worker/src/connection.test.ts', 'at log level debug'],
  'worker-not-there': ['test/routing.test.ts', 'why names the worker that a waiting run is meant for'],
  'worker-id-differs': ['test/routing.test.ts', 'why names the worker that a waiting run is meant for'],
  'worker-of-another-team': ['packages/worker/src/run-worker.test.ts', 'a worker says which team it works for'],
  'worker-draining': ['test/drain-commands.test.ts', 'a drained worker is offered nothing while its run goes on'],
  attempts: ['test/drain-commands.test.ts', 'the attempts of a run are listed with the reason of each'],
  poison: ['test/poison.test.ts', 'a run whose agent dies with its worker three times is not offered again'],
  'run-failed': ['test/run-lifecycle.test.ts', 'each kind of outcome is written once, with its code and its sentence'],
  'look-into-the-workspace': ['packages/worker/src/backends/direct.test.ts', 'with --no-cleanup the workspace stays'],
  'run-details': ['packages/worker/src/backends/direct.test.ts', 'an agent that does %j fails as %s with exit code %i'],
  'out-of-memory': ['packages/worker/src/backends/direct.test.ts', 'an agent that the kernel ended for memory'],
  'container-out-of-memory': [
    'test/docker/failures.test.ts',
    'an agent without memory ends its run with the limit; a command without memory does not',
  ],
  'instance-too-large': ['test/docker/failures.test.ts', 'what keeps a container from being made ends the run'],
  'container-killed': [
    'test/docker/failures.test.ts',
    'a container that somebody kills is tried again, and never called out of memory',
  ],
  'engine-stopped': ['test/docker/failures.test.ts', 'an engine that ends in the middle of a run, %s'],
  'engine-says-no': [
    'packages/worker/src/backends/docker-exit.test.ts',
    'what the engine says of a start becomes what to do about it',
  ],
  'no-network-left': [
    'test/docker/failures.test.ts',
    'an engine without addresses for another network says so, and the run leaves nothing',
  ],
  sidecar: ['test/docker/failures.test.ts', 'what keeps a container from being made ends the run'],
  'volume-missing': ['test/docker/failures.test.ts', 'what keeps a container from being made ends the run'],
  'image-lacks': ['test/docker/failures.test.ts', 'what keeps a container from being made ends the run'],
  'image-wrong-platform': ['test/docker/pulls.test.ts', 'what a registry does not give ends the run'],
  'image-login': ['test/docker/pulls.test.ts', 'without one the run says so'],
  'image-missing': ['test/docker/pulls.test.ts', 'what a registry does not give ends the run'],
  'image-registry-away': ['test/docker/pulls.test.ts', 'what a registry does not give ends the run'],
  'image-no-room': ['test/docker/pulls.test.ts', 'an engine whose disk is full ends the run with that'],
  'out-of-disk': ['packages/worker/src/full-disk.test.ts', 'a worker without room for a task leaves offers to others'],
  'oz-gone': ['packages/worker/src/run-worker.test.ts', 'an oz that disappears later fails the task, not the worker'],
  'workspace-not-made': [
    'packages/worker/src/run-worker.test.ts',
    'a workspace root that cannot be used any more fails the task',
  ],
}

test('every trouble of the page is reproduced by a test', () => {
  expect(Object.keys(reproducedBy).toSorted()).toEqual(troubles.map(({ id }) => id).toSorted())
  for (const [id, [file, name]] of Object.entries(reproducedBy)) expect(read(file), id).toContain(name)
})

test('every trouble names a code or a reason, and says what to do', () => {
  for (const { id, codes, reasons = [], advice } of troubles) {
    expect(codes.length + reasons.length, id).toBeGreaterThan(0)
    for (const code of codes) expect(Object.keys(errorSpecs)).toContain(code)
    expect(advice, id).toMatch(/\.$/)
  }
})
