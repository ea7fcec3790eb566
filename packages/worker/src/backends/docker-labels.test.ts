import { expect, test } from 'vitest'
import {
  imageVolumeName,
  type LabelOwner,
  labelsOf,
  namesOf,
  refsFromLabels,
  sharedNames,
  whoseIs,
} from './docker-labels.ts'

const refs = {
  task_id: '01a2071c-cad9-766a-a9b9-9341919f95cb',
  execution_id: '01a2071c-dead-7bee-8f00-0123456789ab',
}

const owner: LabelOwner = {
  workerId: 'build-1',
  serverUrl: 'https://user:password@oz.example.com',
  installationId: 'a-state-folder',
  instance: '01a2071c-0000-7000-8000-000000000001',
  version: '1.2.3',
  keeps: false,
}

test('what a task has on an engine is named after its run or its execution, and taken for one name by the engine', () => {
  const names = namesOf(refs)
  expect(names).toMatchObject({
    container: 'oz-task-01a2071c-cad9-766a-a9b9-9341919f95cb-0123456789ab',
    network: 'oz-01a2071c-dead-7bee-8f00-0123456789ab',
    control: 'oz-01a2071c-dead-7bee-8f00-0123456789ab-control',
    workspace: 'oz-01a2071c-dead-7bee-8f00-0123456789ab-workspace',
  })
  const all = [...Object.values(names), imageVolumeName(refs, 1), imageVolumeName(refs, 2)]
  expect(new Set(all).size).toBe(all.length)
  for (const name of all) expect(name).toMatch(/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/)
})

test('attempts at one run have names of their own', () => {
  const next = namesOf({ ...refs, execution_id: '01a2071c-dead-7bee-8f00-ba9876543210' })
  expect(Object.values(next).filter((name) => Object.values(namesOf(refs)).includes(name))).toEqual([])
})

test('a bundle and a sidecar are named by their content', () => {
  const id = `sha256:${'0123456789abcdef'.repeat(4)}`
  expect(sharedNames('sidecar', id)).toEqual({
    volume: 'oz-sidecar-0123456789abcdef01234567',
    filler: 'oz-fill-0123456789abcdef01234567',
  })
  expect(sharedNames('agent', 'f'.repeat(64)).volume).toBe(`oz-agent-${'f'.repeat(24)}`)
})

test('labels say whose a thing is, to everybody, and nothing that is secret', () => {
  const labels = labelsOf({ ...owner, keeps: true, ownContainer: 'abc' }, refs, 'task')
  expect(labels).toEqual({
    'oz-worker-id': 'build-1',
    'oz-task-id': refs.task_id,
    'oz-execution-id': refs.execution_id,
    'oz-worker-state': 'a-state-folder',
    'oz-worker-instance': owner.instance,
    'oz-server': expect.stringMatching(/^[0-9a-f]{16}$/),
    'oz-role': 'task',
    'oz-version': '1.2.3',
    'oz-keep': 'true',
    'oz-worker-container': 'abc',
  })
  expect(JSON.stringify(labels)).not.toContain('password')
  expect(labelsOf(owner, refs, 'network')).not.toHaveProperty('oz-keep')
})

test('the task of a thing is known by its labels, unless somebody made them up', () => {
  expect(refsFromLabels(labelsOf(owner, refs, 'workspace'))).toEqual(refs)
  expect(refsFromLabels(undefined)).toBeUndefined()
  expect(refsFromLabels({})).toBeUndefined()
  expect(refsFromLabels({ 'oz-task-id': refs.task_id, 'oz-execution-id': '../../etc' })).toBeUndefined()
})

test('what another state folder, worker or control plane made is not ours', () => {
  const labels = labelsOf(owner, refs, 'task')
  expect(whoseIs(owner, labels)).toBe('ours')
  // Several workers may share one state folder, and clear it for each other.
  expect(whoseIs({ ...owner, workerId: 'build-2' }, labels)).toBe('ours')
  expect(whoseIs({ ...owner, installationId: 'another' }, labels)).toBe('same_worker')
  expect(whoseIs({ ...owner, installationId: 'another', workerId: 'build-2' }, labels)).toBe('foreign')
  expect(whoseIs({ ...owner, installationId: 'another', serverUrl: 'https://elsewhere' }, labels)).toBe('foreign')
  expect(whoseIs(owner, { 'oz-worker-id': 'build-1' })).toBe('foreign')
  expect(whoseIs(owner, undefined)).toBe('foreign')
})
