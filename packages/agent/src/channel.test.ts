import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createDialer } from '@openoz/machine'
import { expect, test } from 'vitest'
import { createAgentChannel } from './channel.ts'

/** Takes blobs and keeps nothing of them. `answers`: codes to refuse the first ones with. */
async function startSink(answers: number[] = []) {
  const received: { bytes: number; length: string | undefined; type: string | undefined }[] = []
  const server = createServer((request, response) => {
    let bytes = 0
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
    })
    request.on('end', () => {
      received.push({ bytes, length: request.headers['content-length'], type: request.headers['content-type'] })
      const refusal = answers.shift()
      response.writeHead(refusal ?? 201, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ blob_id: `blob-${received.length}`, size_bytes: bytes }))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const dialer = createDialer({ serverUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, env: {} })
  const folder = mkdtempSync(join(tmpdir(), 'oz-channel-test-'))
  return {
    received,
    channel: createAgentChannel(dialer, 'oet-token'),
    /** A file of so many bytes. */
    file(size: number): string {
      const path = join(folder, 'file')
      writeFileSync(path, '')
      truncateSync(path, size)
      return path
    },
    async [Symbol.asyncDispose]() {
      await dialer.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

const options = { contentType: 'text/plain', signal: new AbortController().signal }

test('a file of 400 MB is sent as it is read', { timeout: 60_000 }, async () => {
  await using sink = await startSink()
  const size = 400 * 1024 * 1024
  const file = sink.file(size)
  const before = process.memoryUsage().arrayBuffers
  let peak = before
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().arrayBuffers)
  }, 10)
  const id = await sink.channel.uploadBlob({ file }, options)
  clearInterval(watch)
  expect(id).toBe('blob-1')
  expect(sink.received).toEqual([{ bytes: size, length: String(size), type: 'text/plain' }])
  expect(peak - before).toBeLessThan(200_000_000)
})

test('a file that is refused for the moment is sent again from its beginning, an empty one too', async () => {
  await using sink = await startSink([503])
  expect(await sink.channel.uploadBlob({ file: sink.file(1_000_000) }, options)).toBe('blob-2')
  expect(sink.received.map(({ bytes }) => bytes)).toEqual([1_000_000, 1_000_000])
  await sink.channel.uploadBlob({ file: sink.file(0) }, options)
  expect(sink.received.at(-1)).toMatchObject({ bytes: 0, length: '0' })
})

test('a stopped upload ends at once', async () => {
  await using sink = await startSink()
  const stop = new AbortController()
  const upload = sink.channel.uploadBlob({ file: sink.file(400 * 1024 * 1024) }, { ...options, signal: stop.signal })
  setTimeout(() => stop.abort(new Error('stopped')), 20)
  await expect(upload).rejects.toThrow('stopped')
})
