import { expect, test } from 'vitest'
import { availableBackendNames } from '../../packages/worker/src/backends/backend.ts'
import { type ConformanceCase, conformanceCases } from '../conformance/cases.ts'

const cases = Object.values<ConformanceCase>(conformanceCases)

test('each case of the conformance table has a name of its own, and some backend that can do it', () => {
  expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length)
  for (const { name, without = {} } of cases) {
    expect(availableBackendNames, name).toEqual(expect.arrayContaining(Object.keys(without)))
    expect(Object.keys(without).length, name).toBeLessThan(availableBackendNames.length)
  }
})

test('a backend that cannot do a case says why', () => {
  for (const { name, without = {} } of cases)
    for (const reason of Object.values(without)) expect(reason, name).toMatch(/^no: .{10}/)
})
