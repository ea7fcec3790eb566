import { expect, test } from 'vitest'
import { parseVolume } from './task-volume.ts'

test.each([
  ['/srv/cache:/cache', { source: '/srv/cache', isPath: true, target: '/cache' }],
  ['/srv/../etc/ssl/:/etc/ssl/:ro', { source: '/etc/ssl', target: '/etc/ssl', mode: 'ro' }],
  ['npm-cache:/root/.npm:rw,z', { source: 'npm-cache', isPath: false, mode: 'rw,z' }],
  ['/data:/workspace/data', { target: '/workspace/data' }],
  ['/var/run/docker.sock:/var/run/docker.sock', { target: '/var/run/docker.sock' }],
])('%s is understood as docker run does', (spec, expected) => {
  expect(parseVolume(spec)).toMatchObject({ spec, ...expected })
})

test.each([
  ['/only', 'two parts'],
  ['', 'two parts'],
  ['/a:/b:ro:z', 'two parts'],
  [':/b', 'two parts'],
  ['./here:/b', 'absolute path, or the name'],
  ['../up:/b', 'absolute path, or the name'],
  ['/a:b', 'must be absolute'],
  ['/a:/', 'own place'],
  ['/a:/workspace/', 'own place'],
  ['/a:/x/../agent/bin', 'own place'],
  ['/a:/run/openoz', 'own place'],
  ['/a:/b:rw,fast', '"fast" is none of'],
])('%s is refused', (spec, problem) => {
  expect(() => parseVolume(spec)).toThrow(expect.objectContaining({ code: 'volume_spec_invalid' }))
  expect(() => parseVolume(spec)).toThrow(problem)
})
