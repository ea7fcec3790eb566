import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer, type Socket } from 'node:net'

/** The way to a database, which can be shut: then everybody who is on it is cut off, and nobody gets through. */
export interface DatabaseGate extends AsyncDisposable {
  /** The same database by this way. */
  url: string
  shut(): void
}

export async function openDatabaseGate(databaseUrl: string): Promise<DatabaseGate> {
  const url = new URL(databaseUrl.replace(/@[^/]+\//, '@127.0.0.1/'))
  const [, folder = '', port = ''] = /@([^:/]+):(\d+)\//.exec(databaseUrl) ?? []
  const sockets = new Set<Socket>()
  let isShut = false
  const server = createServer((near) => {
    if (isShut) return near.destroy()
    const far = connect(`${decodeURIComponent(folder)}/.s.PGSQL.${port}`)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from)
      from.on('error', () => {})
      from.on('close', () => {
        sockets.delete(from)
        to.destroy()
      })
      from.pipe(to)
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url.port = `${(server.address() as AddressInfo).port}`
  const shut = () => {
    isShut = true
    for (const socket of sockets) socket.destroy()
  }
  return {
    url: url.href,
    shut,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      shut()
      await closed
    },
  }
}
