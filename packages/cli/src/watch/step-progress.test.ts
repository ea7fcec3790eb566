import { expect, test } from 'vitest'
import { createStepProgress } from './step-progress.ts'

const pull = (current: number, total?: number) => ({
  step: 'image_pull' as const,
  progress: { current, total, unit: 'bytes' },
})

test('each tenth of what is known in full is said once', () => {
  const steps = createStepProgress()
  const said = [0, 4, 12, 13, 25, 99, 100].map((current) => steps.next(pull(current, 100)))
  expect(said).toEqual(['0 %', undefined, '10 %', undefined, '20 %', '90 %', '100 %'])
  steps.end('image_pull')
  expect(steps.next(pull(12, 100))).toBe('10 %')
})

test('an amount of nobody knows how much is said again once it has doubled', () => {
  const steps = createStepProgress()
  const said = [0, 1_500_000, 2_000_000, 3_000_000, 40_000_000].map((current) => steps.next(pull(current)))
  expect(said).toEqual([undefined, '1.5 MB', undefined, '3.0 MB', '40 MB'])
})

test('a step that only has words says them when they change, and no step speaks for another', () => {
  const steps = createStepProgress()
  const words = (detail: string) => steps.next({ step: 'sidecars', detail })
  expect([words('first of two'), words('first of two'), words('second of two')]).toEqual([
    'first of two',
    undefined,
    'second of two',
  ])
  expect(steps.next(pull(10, 100))).toBe('10 %')
})
