import { expect, test } from 'vitest'
import { parseVolume } from '../task-volume.ts'
import { sidecarsOf } from './docker-sidecars.ts'

const of = (...paths: string[]) => ({
  additional_sidecars: paths.map((mount_path) => ({ image: 'tools:1', mount_path })),
})

test.each(['/workspace', '/workspace/', '/agent', '/agent/x', '/run/openoz/spool', '/', 'tools', '/a/../workspace'])(
  'a sidecar at %s is refused before anything is made',
  (path) => {
    expect(() => sidecarsOf(of(path), { volumes: [] })).toThrow(
      expect.objectContaining({ reason: 'sidecar_prep', code: 'sidecar_mount_invalid' }),
    )
  },
)

test('two sidecars at one place are refused, and one where the operator mounts something', () => {
  expect(() => sidecarsOf(of('/tools', '/tools/'), { volumes: [] })).toThrow(/something else is mounted there/)
  expect(() => sidecarsOf(of('/cache'), { volumes: [parseVolume('/srv/cache:/cache')] })).toThrow(/something else/)
})

test('an agent that is an image comes before the sidecars, at its own place', () => {
  expect(sidecarsOf(of('/tools'), { volumes: [], agentImage: 'agent:1' })).toEqual([
    { image: 'agent:1', path: '/agent', isWritable: false },
    { image: 'tools:1', path: '/tools', isWritable: false },
  ])
})
