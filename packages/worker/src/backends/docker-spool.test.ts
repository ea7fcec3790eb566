import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { join } from 'node:path'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { openEngine } from '../engine/engine.ts'
import { tarOf } from '../engine/tar-text.ts'
import type { DockerHost, DockerTaskContext } from './docker-host.ts'
import { fetchLeft } from './docker-left.ts'
import { fetchSpool } from './docker-spool.ts'

/** A task's files here, and an engine that answers as it is told. */
async function scene(listener: RequestListener) {
  const folder = mkdtempSync('/tmp/oz-spool-')
  const socketPath = join(folder, 'docker.sock')
  const server = createServer((request, response) => {
    if (request.url === '/version') response.end('{"ApiVersion":"1.47","MinAPIVersion":"1.24"}')
    else if (request.url?.endsWith('/json')) response.end('{"Id":"1"}')
    else listener(request, response)
  })
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  const log = pino({ level: 'silent' })
  const engine = openEngine({ kind: 'unix', socketPath, display: 'x', source: 'the test' }, { env: {}, log })
  const paths = { folder, spool: join(folder, 'spool'), log: join(folder, 'agent.log') }
  const record = { task_id: 't', execution_id: 'e' }
  const context = { engine, paths, record, names: { container: 'c', helper: 'h' }, log } as unknown as DockerTaskContext
  return {
    context,
    folder,
    async [Symbol.asyncDispose]() {
      await engine[Symbol.asyncDispose]()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

test('a file that cannot be written here fails the copy, and not the worker', async () => {
  // What comes twice is there already: as with a full disk, only the stream of the file tells.
  const entry = { name: 'spool/kept/0', body: Buffer.alloc(300_000) }
  const twice = { ...entry, name: 'spool/saved-workspace/saved.json' }
  const archive = await tarOf([entry, twice, twice])
  await using place = await scene((_request, response) => response.end(archive))
  await expect(fetchSpool(place.context, {})).rejects.toMatchObject({ code: 'EEXIST' })
})

test('an engine that hangs holds up nobody for longer than the caller waits', async () => {
  await using place = await scene(() => {})
  const limit = AbortSignal.timeout(200)
  const host = { owner: {} } as Pick<DockerHost, 'owner'>
  await expect(fetchLeft(host, place.context, limit)).rejects.toMatchObject({ name: 'TimeoutError' })
  await expect(fetchSpool(place.context, {}, { signal: AbortSignal.timeout(200) })).rejects.toMatchObject({
    name: 'TimeoutError',
  })
}, 10_000)
