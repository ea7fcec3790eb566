import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'

/** Who is at the other end: the peer, or whom a trusted proxy says it speaks for. */
export type ClientAddress = (request: IncomingMessage) => string

/** What was spoken to us, or by a trusted proxy's word to it; undefined when some proxy stands between that does not say, or is not believed. */
export type ClientScheme = (request: IncomingMessage, own: 'http' | 'https') => 'http' | 'https' | undefined

export interface Proxies {
  clientAddress: ClientAddress
  clientScheme: ClientScheme
}

/** Headers by which a proxy shows itself. */
const proxyHeaders = ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip']

/**
 * `networks` is a comma-separated list of CIDRs or addresses, from which `X-Forwarded-For` and `X-Forwarded-Proto` are believed. The first is read from
 * the right: each proxy appends whom it saw, so the first address that is no trusted proxy is the client. Throws on what is no network.
 */
export function readProxies(networks: string | null): Proxies {
  const trusted = new BlockList()
  for (const network of networks?.split(',') ?? []) addNetwork(trusted, network.trim())
  const isTrusted = (address: string) => trusted.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
  const peerOf = (request: IncomingMessage) => {
    const peer = plainAddress(request.socket.remoteAddress ?? '')
    return { peer, isProxy: networks !== null && isIP(peer) !== 0 && isTrusted(peer) }
  }

  return {
    clientAddress(request) {
      const { peer, isProxy } = peerOf(request)
      if (!isProxy) return peer
      const forwarded = [request.headers['x-forwarded-for'] ?? []].flat().join(',').split(',').map(plainAddress)
      return forwarded.findLast((address) => isIP(address) !== 0 && !isTrusted(address)) ?? peer
    },
    clientScheme(request, own) {
      if (!peerOf(request).isProxy) return proxyHeaders.some((name) => name in request.headers) ? undefined : own
      // With several proxies the first one's word is the client's; all of them are ours.
      const [scheme = ''] = [request.headers['x-forwarded-proto'] ?? []].flat().join(',').split(',')
      const plain = scheme.trim().toLowerCase()
      return plain === 'http' || plain === 'https' ? plain : undefined
    },
  }
}

function addNetwork(list: BlockList, network: string): void {
  const [address = '', prefix] = network.split('/')
  const family = isIP(address)
  const bits = prefix === undefined ? (family === 6 ? 128 : 32) : Number(prefix)
  if (family === 0 || !Number.isInteger(bits) || bits < 0 || bits > (family === 6 ? 128 : 32))
    throw new Error(`"${network}" is not a network such as 10.0.0.0/8`)
  list.addSubnet(address, bits, family === 6 ? 'ipv6' : 'ipv4')
}

/** A dual-stack socket shows IPv4 peers as `::ffff:1.2.3.4`. */
function plainAddress(address: string): string {
  return address.trim().replace(/^::ffff:(?=\d+\.)/i, '')
}
