import { BlockList, isIP } from 'node:net'

/**
 * Everything that is not the public internet, from the IANA special-purpose registries. Of IPv6 only what has been given out (2000::/3) counts as
 * public, less the parts of it that carry an IPv4 address or belong to nobody.
 */
const notPublic = new BlockList()
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const) {
  notPublic.addSubnet(network, prefix, 'ipv4')
}
notPublic.addSubnet('2001::', 23, 'ipv6')
notPublic.addSubnet('2001:db8::', 32, 'ipv6')
notPublic.addSubnet('2002::', 16, 'ipv6')
notPublic.addSubnet('3fff::', 20, 'ipv6')
const givenOut = new BlockList()
givenOut.addSubnet('2000::', 3, 'ipv6')

/** Whether an IP address is one that anybody on the internet may be asked at. Anything but an address is not. */
export function isPublicAddress(address: string): boolean {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  const plain = mapped ?? address.replace(/%.*$/, '')
  const family = isIP(plain)
  if (family === 4) return !notPublic.check(plain, 'ipv4')
  return family === 6 && givenOut.check(plain, 'ipv6') && !notPublic.check(plain, 'ipv6')
}
