import type { IncomingMessage } from 'node:http'
import { expect, test } from 'vitest'
import { readClientAddress } from './client-address.ts'

const request = (remoteAddress: string, forwarded?: string) =>
  ({ socket: { remoteAddress }, headers: { 'x-forwarded-for': forwarded } }) as unknown as IncomingMessage

test('a forwarded header is believed from a trusted proxy only', () => {
  const clientAddress = readClientAddress('10.0.0.0/8, fd00::/8')
  expect(clientAddress(request('10.1.2.3', '203.0.113.9'))).toBe('203.0.113.9')
  expect(clientAddress(request('::ffff:10.1.2.3', '203.0.113.9'))).toBe('203.0.113.9')
  expect(clientAddress(request('198.51.100.7', '203.0.113.9'))).toBe('198.51.100.7')
  expect(readClientAddress(null)(request('10.1.2.3', '203.0.113.9'))).toBe('10.1.2.3')
})

test('what a client wrote itself in front of its proxies does not count', () => {
  const clientAddress = readClientAddress('10.0.0.0/8')
  expect(clientAddress(request('10.1.2.3', '1.1.1.1, 203.0.113.9, 10.9.9.9'))).toBe('203.0.113.9')
  expect(clientAddress(request('10.1.2.3', 'nonsense'))).toBe('10.1.2.3')
  expect(clientAddress(request('10.1.2.3'))).toBe('10.1.2.3')
})

test('a network that is none is named', () => {
  expect(() => readClientAddress('10.0.0.0/99')).toThrow('"10.0.0.0/99" is not a network')
  expect(() => readClientAddress('proxy.local')).toThrow('"proxy.local"')
})
