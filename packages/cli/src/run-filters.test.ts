import { runStates } from '@openoz/protocol'
import { listRunsQuery, runSources } from '@openoz/protocol/schemas'
import { expect, test } from 'vitest'
import { listParams, sourceNames, stateNames } from './run-filters.ts'

test('every state and every source of the wire has a word on the command line', () => {
  expect(Object.values(stateNames).toSorted()).toEqual(runStates.toSorted())
  expect(Object.values(sourceNames).toSorted()).toEqual(runSources.toSorted())
})

test('every filter of the server can be given, and is sent under its name', () => {
  const params = listParams({
    limit: '5',
    state: ['in-progress', 'failed'],
    source: 'scheduled-agent',
    executionLocation: 'remote',
    creator: 'c',
    environment: 'e',
    ancestorRun: '0198c2f0-0000-7000-8000-000000000000',
    name: 'n',
    model: 'm',
    createdAfter: '2026-01-01T00:00:00Z',
    createdBefore: '2026-01-02T00:00:00Z',
    updatedAfter: '2026-01-03T00:00:00Z',
    query: 'words',
    sortBy: 'created-at',
    sortOrder: 'asc',
    cursor: 'x',
  })
  expect(Object.keys(params).toSorted()).toEqual(Object.keys(listRunsQuery.shape).toSorted())
  expect(listRunsQuery.parse(params)).toMatchObject({
    state: ['INPROGRESS', 'FAILED'],
    source: 'SCHEDULED_AGENT',
    sort_by: 'created_at',
  })
})
