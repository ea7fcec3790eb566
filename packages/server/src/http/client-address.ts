import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'

/** Who is at the other end: the peer, or whom a trusted proxy says it speaks for. */
export type ClientAddress = (request: IncomingMessage) => string

/**
 * `networks` is a comma-separated list of CIDRs or addresses, from which `X-Forwarded-For` is believed. The header is read from the right: each
 * proxy appends whom it saw, so the first address that is no trusted proxy is the client. Throws on what is no network.
 */
export function readClientAddress(networks: string | null): ClientAddress {
  const trusted = new BlockList()
  for (const network of networks?.split(',') ?? []) addNetwork(trusted, network.trim())
  const isTrusted = (address: string) => trusted.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')

  return (request) => {
    const peer = plainAddress(request.socket.remoteAddress ?? '')
    if (networks === null || isIP(peer) === 0 || !isTrusted(peer)) return peer
    const forwarded = [request.headers['x-forwarded-for'] ?? []].flat().join(',').split(',').map(plainAddress)
    return forwarded.findLast((address) => isIP(address) !== 0 && !isTrusted(address)) ?? peer
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
