import { BlockList, isIP } from 'node:net'
import { safeDecode } from '@openoz/protocol'

/**
 * Which proxy the environment names for an address: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` in either case, lower case first.
 *
 * undici and Node read the same variables, but neither says for a WebSocket what it decides for a request, and neither knows address
 * ranges (`10.0.0.0/8`), which are common in cluster environments. So both kinds of connection ask here. The loopback is never
 * proxied: the proxy's loopback is another machine.
 */
export function proxyFor(target: URL, env: NodeJS.ProcessEnv): URL | undefined {
  const host = bareHost(target)
  if (isLoopback(host) || isExcepted(host, portOf(target), read(env, 'no_proxy'))) return undefined
  const value = target.protocol === 'https:' ? read(env, 'https_proxy') : read(env, 'http_proxy')
  if (!value) return undefined
  const withScheme = /^[a-z0-9]+:\/\//i.test(value) ? value : `http://${value}`
  return URL.canParse(withScheme) ? new URL(withScheme) : undefined
}

/** Passwords in the addresses of proxies, as written and decoded, for the masker. */
export function proxySecrets(env: NodeJS.ProcessEnv): string[] {
  const names = ['https_proxy', 'http_proxy', 'all_proxy'].flatMap((name) => [name, name.toUpperCase()])
  const written = names.flatMap((name) => /^(?:[a-z0-9+.-]+:\/\/)?[^/@:]*:([^/]*)@/i.exec(env[name] ?? '')?.[1] ?? [])
  return [...new Set(written.flatMap((password) => [password, safeDecode(password)]))].filter((one) => one !== '')
}

/** The host as sockets want it: no brackets around an IPv6 address. */
export function bareHost(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, '').toLowerCase()
}

export function portOf(url: URL): number {
  return url.port ? Number(url.port) : url.protocol === 'https:' ? 443 : 80
}

function read(env: NodeJS.ProcessEnv, name: string): string {
  return (env[name] || env[name.toUpperCase()] || '').trim()
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost') || host === '::1' || /^127\./.test(host)
}

/** Entries are `*`, a host (which stands for its subdomains too, with or without a leading dot), an address or a range; any may carry a port. */
function isExcepted(host: string, port: number, noProxy: string): boolean {
  return noProxy
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .some((entry) => {
      if (entry === '*') return true
      const range = /^(.+)\/(\d+)$/.exec(entry)
      if (range?.[1] && range[2]) return isInRange(host, range[1], Number(range[2]))
      const withPort = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(entry)
      if (withPort && Number(withPort[3]) !== port) return false
      const name = (withPort ? (withPort[1] ?? withPort[2] ?? '') : entry).replace(/^\*?\./, '')
      return host === name || (isIP(host) === 0 && host.endsWith(`.${name}`))
    })
}

function isInRange(host: string, network: string, prefix: number): boolean {
  const family = isIP(host)
  if (family === 0 || isIP(network) !== family || prefix > (family === 4 ? 32 : 128)) return false
  const list = new BlockList()
  const kind = family === 4 ? 'ipv4' : 'ipv6'
  list.addSubnet(network, prefix, kind)
  return list.check(host, kind)
}
