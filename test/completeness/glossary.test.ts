import { executionStates, runStates, turnOutcomes } from '@openoz/protocol'
import { sessionEventTypes, setupSteps } from '@openoz/protocol/schemas'
import { expect, test } from 'vitest'
import { read } from './documents.ts'

const glossary = read('docs/glossary.md')

test.each([
  ['States of a run', runStates],
  ['States of an execution', executionStates],
  ['Events of the session log', sessionEventTypes],
  ['Steps of the waterfall', setupSteps],
])('the glossary explains everything under "%s", and nothing that does not exist', (heading, names) => {
  const explained = [...section(heading).matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1])
  expect(explained.toSorted()).toEqual(names.toSorted())
})

test('the glossary names every outcome of a turn', () => {
  for (const outcome of turnOutcomes) expect(section('Outcomes of a turn')).toContain(`\`${outcome}\``)
})

test('the page about the life of a run has every state of a run', () => {
  const rows = [...read('docs/the-life-of-a-run.md').matchAll(/^\| `([A-Z]+)` \|/gm)].map((match) => match[1])
  expect(rows).toEqual([...runStates])
})

test('the nouns are in order', () => {
  const nouns = [...section('Nouns').matchAll(/^\| ([^|]+) \|/gm)].map((match) => match[1] ?? '').slice(2)
  expect(nouns).toEqual(nouns.toSorted((a, b) => a.localeCompare(b, 'en', { sensitivity: 'base' })))
})

function section(heading: string): string {
  const [, after = ''] = glossary.split(`\n## ${heading}\n`)
  return after.split('\n## ')[0] ?? ''
}
