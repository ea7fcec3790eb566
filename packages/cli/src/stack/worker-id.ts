/** Ids that begin with `warp` are reserved, and whitespace is not allowed in any: a host may be called either. */
export function workerIdFromHost(hostname: string): string {
  const id = hostname.trim().replace(/\s+/g, '-').slice(0, 200)
  if (id === '') return 'this-machine'
  return id.toLowerCase().startsWith('warp') ? `host-${id}` : id
}
