import { beforeAll, describe, expect, test } from 'vitest'
import type { BackendFixture, CaseBody } from './backend-fixture.ts'
import { type CaseId, type ConformanceCase, conformanceCases } from './cases.ts'
import { followedRuns } from './followed-runs.ts'
import { runCases } from './run-cases.ts'
import { taskCases } from './task-cases.ts'

const bodies: Record<CaseId, CaseBody> = { ...taskCases, ...runCases, ...followedRuns }

/** The cases of the list that this backend can do, as tests, and one that none of them is missing. */
export function describeBackend(fixture: BackendFixture): void {
  describe(fixture.name, () => {
    const begun = new Set<string>()
    beforeAll(() => fixture.prepare())
    const cases = Object.entries<ConformanceCase>(conformanceCases) as [CaseId, ConformanceCase][]
    const own = cases.filter(([, { without }]) => without?.[fixture.name] === undefined)
    for (const [id, { name }] of own) {
      test(name, async () => {
        begun.add(id)
        await bodies[id](fixture)
      })
    }

    test('all that the table says of it was looked at', () => {
      expect([...begun].toSorted()).toEqual(own.map(([id]) => id).toSorted())
    })
  })
}
