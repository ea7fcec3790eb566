import { expect, test } from 'vitest'
import { limitsOf } from './docker-shape.ts'

const machine = { facts: { cpus: 4, memoryBytes: 8 * 1024 ** 3 }, workerId: 'w1' }

test('a shape is what the engine limits the container to', () => {
  expect(limitsOf({ vcpus: 1.5, memory_gb: 2 }, machine)).toEqual({
    nanoCpus: 1_500_000_000,
    memoryBytes: 2 * 1024 ** 3,
  })
  expect(limitsOf(undefined, machine)).toBeUndefined()
})

test('less than an engine takes is what it takes', () => {
  expect(limitsOf({ vcpus: 0.001, memory_gb: 0.001 }, machine)).toEqual({
    nanoCpus: 10_000_000,
    memoryBytes: 6 * 1024 ** 2,
  })
})

test.each([
  { vcpus: 5, memory_gb: 1 },
  { vcpus: 1, memory_gb: 9 },
])('more than the machine has is refused by name', (shape) => {
  expect(() => limitsOf(shape, machine)).toThrow(/w1 has 4 CPUs and 8 GB/)
})
