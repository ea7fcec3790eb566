import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { openEngine } from '../engine/engine.ts'
import { until } from '../test-support/until.ts'
import { startObserver } from './docker-observe.ts'

test('an end that is told while the engine is being asked is noticed at once, with who asked for it', async () => {
  const folder = mkdtempSync('/tmp/oz-observe-')
  const socketPath = join(folder, 'docker.sock')
  const asked: ServerResponse[] = []
  let events: ServerResponse | undefined
  const server = createServer(({ url = '' }, response) => {
    if (url.endsWith('/version')) response.end('{"ApiVersion":"1.47","MinAPIVersion":"1.24"}')
    else if (url.includes('/events')) {
      events = response
      response.flushHeaders()
    } else asked.push(response)
  })
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  const log = pino({ level: 'silent' })
  const engine = openEngine({ kind: 'unix', socketPath, display: 'x', source: 'the test' }, { env: {}, log })
  const leaving = new AbortController()
  const observer = startObserver({ engine, labels: [], log, signal: leaving.signal })
  try {
    await until('a stream of events', () => events)
    const seen = observer.watch('c', { isAsked: () => true, signal: leaving.signal })
    const first = await until('the first look', () => asked[0])
    const tell = (Action: string, Attributes = {}) =>
      events?.write(`${JSON.stringify({ Type: 'container', Action, Actor: { ID: 'c', Attributes } })}\n`)
    tell('kill', { signal: '9' })
    tell('die')
    // The answer is from before: it comes when the event surely has.
    await engine.json('GET', '/version').catch(() => {})
    const startedAt = performance.now()
    first.end('{"State":{"Running":true,"Status":"running"}}')
    const second = await until('another look', () => asked.find((one) => one !== first && !one.writableEnded), 3_000)
    expect(performance.now() - startedAt).toBeLessThan(3_000)
    second.end('{"State":{"Running":false,"Status":"exited","ExitCode":137,"OOMKilled":true}}')
    expect(await seen).toMatchObject({ state: { ExitCode: 137 }, wasKilled: true, wasEngineAway: false })
  } finally {
    leaving.abort(new Error('over'))
    await engine[Symbol.asyncDispose]()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    rmSync(folder, { recursive: true })
  }
})
