import type { IncomingMessage } from 'node:http'
import { expect, test } from 'vitest'
import { readProxies } from './client-address.ts'

const asked = (remoteAddress: string, headers: Record<string, string> = {}) =>
  ({ socket: { remoteAddress }, headers }) as unknown as IncomingMessage
const request = (remoteAddress: string, forwarded?: string) =>
  asked(remoteAddress, forwarded === undefined ? {} : { 'x-forwarded-for': forwarded })

test('a forwarded header is believed from a trusted proxy only', () => {
  const { clientAddress } = readProxies('10.0.0.0/8, fd00::/8')
  expect(clientAddress(request('10.1.2.3', '203.0.113.9'))).toBe('203.0.113.9')
  expect(clientAddress(request('::ffff:10.1.2.3', '203.0.113.9'))).toBe('203.0.113.9')
  expect(clientAddress(request('198.51.100.7', '203.0.113.9'))).toBe('198.51.100.7')
  expect(readProxies(null).clientAddress(request('10.1.2.3', '203.0.113.9'))).toBe('10.1.2.3')
})

test('what a client wrote itself in front of its proxies does not count', () => {
  const { clientAddress } = readProxies('10.0.0.0/8')
  expect(clientAddress(request('10.1.2.3', '1.1.1.1, 203.0.113.9, 10.9.9.9'))).toBe('203.0.113.9')
  expect(clientAddress(request('10.1.2.3', 'nonsense'))).toBe('10.1.2.3')
  expect(clientAddress(request('10.1.2.3'))).toBe('10.1.2.3')
})

test('how a proxy was asked is said by a trusted one, and known of no other', () => {
  const { clientScheme } = readProxies('10.0.0.0/8')
  expect(clientScheme(asked('198.51.100.7'), 'http')).toBe('http')
  expect(clientScheme(asked('198.51.100.7'), 'https')).toBe('https')
  expect(clientScheme(asked('10.1.2.3', { 'x-forwarded-proto': 'https' }), 'http')).toBe('https')
  expect(clientScheme(asked('10.1.2.3', { 'x-forwarded-proto': 'HTTP, https' }), 'https')).toBe('http')
  expect(clientScheme(asked('10.1.2.3', { 'x-forwarded-proto': 'gopher' }), 'http')).toBeUndefined()
  expect(clientScheme(asked('10.1.2.3'), 'http')).toBeUndefined()
  for (const name of ['x-forwarded-proto', 'x-forwarded-for', 'forwarded'])
    expect(clientScheme(asked('198.51.100.7', { [name]: 'http' }), 'http')).toBeUndefined()
})

test('a network that is none is named', () => {
  expect(() => readProxies('10.0.0.0/99')).toThrow('"10.0.0.0/99" is not a network')
  expect(() => readProxies('proxy.local')).toThrow('"proxy.local"')
})
