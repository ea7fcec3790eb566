import assert from 'node:assert/strict'
import { test } from 'node:test'
import { splitBill } from '../src/split-bill.js'

const total = (shares) => shares.reduce((sum, { cents }) => sum + cents, 0)

test('a bill that divides evenly is split evenly', () => {
  assert.deepEqual(splitBill(900, ['Ada', 'Grace', 'Linus']), [
    { name: 'Ada', cents: 300 },
    { name: 'Grace', cents: 300 },
    { name: 'Linus', cents: 300 },
  ])
})

test('the shares add up to the bill', () => {
  assert.equal(total(splitBill(10_000, ['Ada', 'Grace', 'Linus'])), 10_000)
  assert.equal(total(splitBill(1, ['Ada', 'Grace'])), 1)
})

test('nobody pays more than one cent more than anybody else', () => {
  const shares = splitBill(10_001, ['Ada', 'Grace', 'Linus', 'Margaret']).map(({ cents }) => cents)
  assert.ok(Math.max(...shares) - Math.min(...shares) <= 1)
})

test('a bill needs somebody to pay it', () => {
  assert.throws(() => splitBill(100, []), /Nobody/)
})
