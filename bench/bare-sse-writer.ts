/**
 * The control of the fan-out: a bare `node:http` server that writes what is posted to it to everybody who watches, and does nothing else. Prints
 * its address; ends with its stdin.
 */
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

const viewers = new Map<string, Set<ServerResponse>>()

const server = createServer((request, response) => {
  const channel = request.url ?? '/'
  const watching = viewers.get(channel) ?? new Set()
  viewers.set(channel, watching)
  if (request.method === 'GET') {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    watching.add(response)
    response.on('close', () => watching.delete(response))
    return
  }
  const parts: Buffer[] = []
  request.on('data', (part: Buffer) => parts.push(part))
  request.on('end', () => {
    const frames = Buffer.concat(parts)
    for (const viewer of watching) viewer.write(frames)
    response.end('{}')
  })
})
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
process.stdin.on('end', () => process.exit()).resume()
