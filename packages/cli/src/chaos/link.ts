import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type NetConnectOpts, type Socket } from 'node:net'
import type { TroubleKind } from './plan.ts'

/**
 * A stretch of network that can go wrong: a TCP proxy before one or several targets, which takes the next one where one does not answer.
 *
 * - `delay`: everything arrives, later.
 * - `drop`: what is said from now on arrives nowhere.
 * - `half-open`: nobody reads any more, and nobody hangs up.
 * - `cut`: connections break, and new ones are refused.
 *
 * Connections that lost something break when the trouble ends: a stream with a hole in it is no TCP.
 */
export interface Link extends AsyncDisposable {
  readonly port: number
  /** Takes the place of an earlier one. Answers what ends it, which does nothing once another one has taken its place. */
  begin(trouble: TroubleKind): () => void
}

const delayMs = 400

interface Pair {
  client: Socket
  target: Socket | undefined
  isSpoilt: boolean
}

export async function startLink(targets: () => NetConnectOpts[]): Promise<Link> {
  let trouble: TroubleKind | undefined
  let next = 0
  let begun = 0
  const pairs = new Set<Pair>()

  const end = (pair: Pair) => {
    pairs.delete(pair)
    pair.client.destroy()
    pair.target?.destroy()
  }

  /** In order, also when the delay ends between two pieces. */
  function carry(pair: Pair, from: Socket, to: Socket): void {
    let last = Promise.resolve()
    let isWaiting = false
    from.on('data', (chunk) => {
      if (trouble === 'drop' || trouble === 'half-open') pair.isSpoilt = true
      if (pair.isSpoilt) return
      if (trouble !== 'delay' && !isWaiting) return pass(chunk)
      isWaiting = true
      const due = new Promise<void>((resolve) => setTimeout(resolve, delayMs))
      const turn = last.then(() => due).then(() => pass(chunk))
      last = turn
      void turn.then(() => {
        if (last === turn) isWaiting = false
      })
    })
    const pass = (chunk: Buffer | string) => {
      if (to.destroyed || to.write(chunk)) return
      from.pause()
      to.once('drain', () => {
        if (trouble !== 'half-open') from.resume()
      })
    }
    from.on('end', () => {
      if (!pair.isSpoilt) void last.then(() => to.end())
    })
    from.on('close', () => {
      if (!pair.isSpoilt) void last.then(() => end(pair))
    })
    from.on('error', () => {})
  }

  async function connect(): Promise<Socket | undefined> {
    const candidates = targets()
    for (let attempt = 0; attempt < candidates.length; attempt++) {
      const address = candidates[next++ % candidates.length]
      if (!address) continue
      const socket = createConnection(address)
      socket.on('error', () => {})
      try {
        await once(socket, 'connect')
        return socket
      } catch {
        socket.destroy()
      }
    }
    return undefined
  }

  const server = createServer({ pauseOnConnect: true }, (client) => {
    client.on('error', () => {})
    if (trouble === 'cut') return void client.destroy()
    const pair: Pair = { client, target: undefined, isSpoilt: trouble === 'half-open' || trouble === 'drop' }
    pairs.add(pair)
    if (pair.isSpoilt) return
    void connect().then((target) => {
      if (!target || !pairs.has(pair)) {
        target?.destroy()
        return end(pair)
      }
      pair.target = target
      target.setNoDelay(true)
      client.setNoDelay(true)
      carry(pair, client, target)
      carry(pair, target, client)
      client.resume()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')

  return {
    port: (server.address() as AddressInfo).port,
    begin(wanted) {
      trouble = wanted
      const mine = ++begun
      for (const pair of [...pairs]) {
        // Nothing may arrive behind a hole.
        if (wanted === 'cut' || (wanted === 'delay' && pair.isSpoilt)) end(pair)
        if (wanted !== 'half-open') continue
        pair.isSpoilt = true
        pair.client.pause()
        pair.target?.pause()
      }
      return () => {
        if (mine !== begun) return
        trouble = undefined
        for (const pair of [...pairs]) if (pair.isSpoilt) end(pair)
      }
    },
    async [Symbol.asyncDispose]() {
      trouble = 'cut'
      for (const pair of [...pairs]) end(pair)
      server.close()
      await once(server, 'close')
    },
  }
}
