import { expect, test } from 'vitest'
import { isUnneeded } from './docker-sweep.ts'

const now = Date.parse('2026-06-10T12:00:00Z')
const hoursAgo = (hours: number) => new Date(now - hours * 3_600_000).toISOString()

test.each([
  ['the worker’s own bundle, however old', { 'oz-bundle': 'mine' }, 10_000, false],
  ['another one that was just filled', { 'oz-bundle': 'other' }, 0.5, false],
  ['another one', { 'oz-bundle': 'other' }, 2, true],
  ['a sidecar of this week', { 'oz-sidecar': 'sha256:1' }, 100, false],
  ['an older sidecar', { 'oz-sidecar': 'sha256:1' }, 200, true],
  ['a task’s own', { 'oz-execution-id': 'x' }, 10_000, false],
])('of volumes that no container has, %s: %o, %i hours old, goes: %s', (_, Labels, hours, goes) => {
  expect(isUnneeded({ Labels, CreatedAt: hoursAgo(hours) }, { bundleHash: 'mine', now })).toBe(goes)
})
