import { runStates } from '@openoz/protocol'
import { artifactTypes, listRunsQuery, runSources } from '@openoz/protocol/schemas'
import { expect, test } from 'vitest'
import { artifactTypeNames, listParams, sourceNames, stateNames } from './run-filters.ts'

test('every state, source and type of artifact of the wire has a word on the command line', () => {
  expect(Object.values(stateNames).toSorted()).toEqual(runStates.toSorted())
  expect(Object.values(sourceNames).toSorted()).toEqual(runSources.toSorted())
  expect(Object.values(artifactTypeNames).toSorted()).toEqual(artifactTypes.toSorted())
})

test('the filters of the server can be given, and are sent under their names', () => {
  const params = listParams({
    limit: 5,
    state: ['in-progress', 'failed'],
    source: 'scheduled-agent',
    executionLocation: 'remote',
    creator: 'c',
    environment: 'e',
    skill: 's',
    schedule: 'd',
    artifactType: 'pull-request',
    metadata: ['ticket=SHOP-7', 'a=b=c'],
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
  const { 'metadata[ticket]': ticket, 'metadata[a]': a, ...plain } = params
  expect([ticket, a]).toEqual(['SHOP-7', 'b=c'])
  // Of `skill` the line has one name; who performs a run is who created it; nothing makes the others yet.
  const unnamed = ['skill', 'executor', 'automation_id', 'factory_uid', 'metadata']
  expect([...Object.keys(plain), ...unnamed].toSorted()).toEqual(Object.keys(listRunsQuery.shape).toSorted())
  expect(listRunsQuery.parse(plain)).toMatchObject({
    state: ['INPROGRESS', 'FAILED'],
    source: 'SCHEDULED_AGENT',
    sort_by: 'created_at',
    skill_spec: 's',
    artifact_type: 'PULL_REQUEST',
  })
})
