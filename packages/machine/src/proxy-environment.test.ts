import { expect, test } from 'vitest'
import { proxyFor } from './proxy-environment.ts'

const env = (noProxy: string) => ({ HTTP_PROXY: 'http://plain:1', https_proxy: 'secure:2', NO_PROXY: noProxy })
const proxyOf = (url: string, noProxy = '') => proxyFor(new URL(url), env(noProxy))?.host

test('the variable is chosen by the scheme of the target, and may lack its own scheme', () => {
  expect(proxyOf('http://a.test')).toBe('plain:1')
  expect(proxyOf('https://a.test')).toBe('secure:2')
  expect(proxyFor(new URL('http://a.test'), {})).toBeUndefined()
  expect(proxyFor(new URL('http://a.test'), { http_proxy: '', HTTP_PROXY: 'http://x' })?.host).toBe('x')
})

test('the loopback is never proxied', () => {
  for (const host of ['localhost', 'oz.localhost', '127.0.0.1', '127.3.2.1', '[::1]']) {
    expect(proxyOf(`http://${host}:4747`)).toBeUndefined()
  }
})

test.each([
  ['*', 'https://a.test', true],
  ['a.test', 'https://a.test', true],
  ['A.Test', 'https://a.test', true],
  ['a.test', 'https://b.a.test', true],
  ['.a.test', 'https://b.a.test', true],
  ['*.a.test', 'https://b.a.test', true],
  ['a.test', 'https://bba.test', false],
  ['x, a.test', 'https://a.test', true],
  ['x a.test', 'https://a.test', true],
  ['a.test:443', 'https://a.test', true],
  ['a.test:8443', 'https://a.test', false],
  ['10.0.0.0/8', 'http://10.20.30.40', true],
  ['10.0.0.0/8', 'http://11.0.0.1', false],
  ['10.0.0.0/8', 'http://10.a.test', false],
  ['10.0.0.5', 'http://10.0.0.5', true],
  ['0.0.5', 'http://10.0.0.5', false],
  ['fd00::/8', 'http://[fd12::1]', true],
  ['fd12::1', 'http://[fd12::1]:80', true],
  ['[fd12::1]:81', 'http://[fd12::1]', false],
  ['10.0.0.0/99', 'http://10.0.0.5', false],
])('NO_PROXY=%s for %s: %s', (noProxy, url, isExcepted) => {
  expect(proxyOf(url, noProxy) === undefined).toBe(isExcepted)
})
