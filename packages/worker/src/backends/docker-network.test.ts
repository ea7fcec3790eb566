import { expect, test } from 'vitest'
import { subnetCount, subnetOf } from './docker-network.ts'

test('a range is cut into networks of 16 addresses', () => {
  expect(subnetCount('10.213.0.0/16')).toBe(4096)
  expect(subnetOf('10.213.0.0/16', 0)).toBe('10.213.0.0/28')
  expect(subnetOf('10.213.0.0/16', 1)).toBe('10.213.0.16/28')
  expect(subnetOf('10.213.0.0/16', 4095)).toBe('10.213.255.240/28')
})

test('a range begins where its bits say, whatever stands behind them', () => {
  expect(subnetOf('192.168.7.99/24', 2)).toBe('192.168.7.32/28')
  expect(subnetOf('10.1.2.3/28', 0)).toBe('10.1.2.0/28')
})
