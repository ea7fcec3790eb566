import { expect, test } from 'vitest'
import { faultKinds, planHash, planRound } from './plan.ts'

const wish = { seed: '7', runs: 50, servers: 2, kinds: [...faultKinds] }

test('a seed means one plan', () => {
  expect(planRound(wish)).toEqual(planRound(wish))
  expect(planHash(planRound(wish))).toBe(planHash(planRound(wish)))
  expect(planHash(planRound({ ...wish, seed: '8' }))).not.toBe(planHash(planRound(wish)))
})

test('what is damaged changes nothing of what is sent', () => {
  expect(planRound({ ...wish, kinds: ['agent'] }).runs).toEqual(planRound(wish).runs)
  expect(planRound({ ...wish, runs: 10 }).runs).toEqual(planRound(wish).runs.slice(0, 10))
})

test('a round has every kind of damage that was asked for, and no other', () => {
  const { faults } = planRound({ ...wish, runs: 3 })
  expect(new Set(faults.map(({ target }) => target))).toEqual(new Set(faultKinds))
  expect(planRound({ ...wish, kinds: [] }).faults).toEqual([])
  expect(planRound({ ...wish, kinds: ['server'] }).faults.every(({ target }) => target === 'server')).toBe(true)
})

test('there is something of everything among the runs', () => {
  const { runs } = planRound({ ...wish, runs: 200 })
  const steps = runs.flatMap(({ turns }) => turns.flatMap((turn) => turn.steps))
  expect(new Set(steps).size).toBe(8)
  expect(runs.some(({ cancel }) => cancel)).toBe(true)
  expect(runs.some(({ turns }) => turns.some(({ begins }) => begins === 'at-once'))).toBe(true)
  expect(new Set(runs.flatMap(({ turns }) => turns.flatMap(({ said }) => said.map(({ mode }) => mode)))).size).toBe(2)
})

test('of several servers one is told nothing by the others', () => {
  expect(planRound(wish).withoutNotify).toHaveLength(1)
  expect(planRound({ ...wish, servers: 1 }).withoutNotify).toEqual([])
})
