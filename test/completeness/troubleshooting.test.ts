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
    'test/docker/discovery.test.ts',
    'an engine that is not there, or does not listen, is named with who named it',
  ],
  'engine-permission': [
    'test/docker/discovery.test.ts',
    'a user who may not use the engine is told which group to join',
  ],
  'engine-platform': ['packages/worker/src/engine/engine.test.ts', 'an engine %s is refused by name'],
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
    'test/docker/container-life.test.ts',
    'a task that used more memory than it was given is told from one that somebody killed',
  ],
  'engine-stopped': [
    'packages/worker/src/task-outcome.test.ts',
    'what ended with its engine was lost from sight, and is tried again',
  ],
  'image-lacks': ['test/agent-bundle.test.ts', 'setup commands fail the run and say why'],
  'image-wrong-platform': ['test/docker/registry.test.ts', 'an image for another CPU is refused, wherever it lies'],
  'image-login': ['test/docker/registry.test.ts', 'a private image needs the operator’s login, and is pulled with it'],
  'image-missing': ['test/docker/registry.test.ts', 'what a registry does not have is named'],
  'image-registry-away': [
    'test/docker/registry.test.ts',
    'a registry that cannot be reached is tried three times more',
  ],
  'image-no-room': ['test/docker/registry.test.ts', 'an engine without room for an image says so'],
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
