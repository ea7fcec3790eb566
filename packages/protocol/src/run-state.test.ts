import { expect, test } from 'vitest'
import { executionStates, isLive, isTerminal, mayFollow, runCan, runStates, turnOutcomes } from './run-state.ts'

test('what a run can be cancelled in is exactly what is not over', () => {
  for (const state of runStates) expect([state, runCan('cancel', { state })]).toEqual([state, !isTerminal(state)])
})

test('from every state that takes a cancel a run can become CANCELLED', () => {
  for (const state of runStates.filter((state) => !isTerminal(state)))
    expect([state, mayFollow(state, 'CANCELLED')]).toEqual([state, true])
})

test('a run that ended goes on only by a follow-up', () => {
  for (const from of runStates.filter(isTerminal))
    expect(runStates.filter((to) => mayFollow(from, to))).toEqual(['QUEUED', 'INPROGRESS'])
})

test('no state follows itself, and every state can be reached', () => {
  for (const state of runStates) expect(mayFollow(state, state)).toBe(false)
  const reached = new Set<string>(['QUEUED'])
  for (const from of runStates) for (const to of runStates) if (mayFollow(from, to)) reached.add(to)
  expect([...reached].sort()).toEqual([...runStates].sort())
})

test('a running turn can end in every outcome', () => {
  for (const outcome of turnOutcomes) expect([outcome, mayFollow('INPROGRESS', outcome)]).toEqual([outcome, true])
})

test('an execution is live until it has ended or is lost', () => {
  expect(executionStates.filter((state) => !isLive(state))).toEqual(['ended', 'lost'])
})
