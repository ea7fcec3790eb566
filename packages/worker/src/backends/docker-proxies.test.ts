import { expect, test } from 'vitest'
import { readTaskNetwork } from '../task-network.ts'
import { containerProxies } from './docker-proxies.ts'

function proxies(
  env: NodeJS.ProcessEnv,
  { taskEnvironment = {}, network = 'isolated' }: { taskEnvironment?: Record<string, string>; network?: string } = {},
) {
  const worker = { env, taskEnvironment, serverRootUrl: 'https://oz.example.com' }
  const found = containerProxies(readTaskNetwork(env), { worker, options: { network }, facts: { isLocal: true } })
  return { given: found.network.proxies, left: found.left, hidesServer: found.hidesServer }
}

test.each(['http://127.0.0.1:3128', 'localhost:3128', 'http://[::1]:3128', 'http://me:word@127.0.0.1:3128'])(
  'a proxy on this machine (%s) is none for containers, which reach the control plane through the worker',
  (value) => {
    expect(proxies({ HTTPS_PROXY: value, NO_PROXY: 'localhost,10.0.0.0/8' })).toEqual({
      given: { NO_PROXY: 'localhost,10.0.0.0/8' },
      left: ['HTTPS_PROXY'],
      hidesServer: true,
    })
  },
)

test('a proxy elsewhere is passed on', () => {
  const env = { https_proxy: 'http://proxy:3128', all_proxy: 'socks5://127.0.0.1:1080' }
  expect(proxies(env)).toEqual({
    given: { https_proxy: 'http://proxy:3128' },
    left: ['all_proxy'],
    hidesServer: false,
  })
})

test('the worker is no way where the control plane needs no proxy, or the operator has named one for tasks', () => {
  const HTTPS_PROXY = 'http://127.0.0.1:3128'
  expect(proxies({ HTTPS_PROXY, NO_PROXY: 'example.com' }).hidesServer).toBe(false)
  expect(proxies({ HTTPS_PROXY }, { taskEnvironment: { HTTPS_PROXY: 'http://proxy:1' } }).hidesServer).toBe(false)
})

test('in the network of this machine its loopback is what it says', () => {
  const HTTPS_PROXY = 'http://127.0.0.1:3128'
  expect(proxies({ HTTPS_PROXY }, { network: 'host' })).toEqual({
    given: { HTTPS_PROXY },
    left: [],
    hidesServer: false,
  })
})
