import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { AppError } from '@openoz/protocol'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { getArchive, removeContainer } from './containers.ts'
import { openEngine } from './engine.ts'
import { checkEngine } from './engine-check.ts'
import { followEvents } from './engine-events.ts'
import { type EngineFailure, engineProblem, isEngineAway } from './engine-failure.ts'
import { readTar, tarOf } from './tar-text.ts'

/** What no engine at hand says: other versions, other systems, and breaking off. It speaks HTTP on a socket of its own. */
async function standIn(listener: RequestListener, env: NodeJS.ProcessEnv = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'oz-engine-'))
  const socketPath = join(folder, 'docker.sock')
  const asked: string[] = []
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`)
    listener(request, response)
  })
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  const lines: string[] = []
  const log = pino({ level: 'trace' }, { write: (line: string) => void lines.push(line) })
  const engine = openEngine({ kind: 'unix', socketPath, display: 'unix://x.sock', source: 'the test' }, { env, log })
  return {
    engine,
    asked,
    lines,
    async [Symbol.asyncDispose]() {
      await engine[Symbol.asyncDispose]()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      rmSync(folder, { recursive: true })
    },
  }
}

const version = { Version: '20.10.24', ApiVersion: '1.41', MinAPIVersion: '1.12', Os: 'linux', Arch: 'amd64' }
const info = {
  OSType: 'linux',
  Architecture: 'x86_64',
  NCPU: 2,
  MemTotal: 4e9,
  CgroupVersion: '2',
  Runtimes: { runc: {} },
}

/** Answers as an engine of these versions would. */
function answering(more: { version?: object; info?: object } = {}): RequestListener {
  return ({ url = '' }, response) => {
    const body = url.endsWith('/version') ? { ...version, ...more.version } : { ...info, ...more.info }
    response.end(JSON.stringify(body))
  }
}

test.each([
  ['1.41', '1.12', '1.41'],
  ['1.47', '1.24', '1.47'],
  ['1.52', '1.44', '1.47'],
  ['1.60', '1.50', '1.50'],
])('an engine that speaks %s, and %s at least, is spoken to in %s', async (ApiVersion, MinAPIVersion, spoken) => {
  await using stand = await standIn(answering({ version: { ApiVersion, MinAPIVersion } }))
  await stand.engine.json('GET', '/info')
  await stand.engine.json('GET', '/info')
  expect(stand.asked).toEqual(['GET /version', `GET /v${spoken}/info`, `GET /v${spoken}/info`])
})

test('DOCKER_API_VERSION says what is spoken, as far as the engine does', async () => {
  const env = { DOCKER_API_VERSION: '1.43' }
  await using newer = await standIn(answering({ version: { ApiVersion: '1.47' } }), env)
  await newer.engine.json('GET', '/info')
  expect(newer.asked).toContain('GET /v1.43/info')
  await using older = await standIn(answering(), env)
  await expect(older.engine.json('GET', '/info')).rejects.toThrow(/speaks API 1.12 to 1.41; this worker needs 1.43/)
  const open = () => openEngine(older.engine.address, { env: { DOCKER_API_VERSION: 'v2' }, log: pino() })
  expect(open).toThrow('DOCKER_API_VERSION is not valid')
})

test('an engine that was changed for a newer one is asked anew', async () => {
  let isChanged = false
  await using stand = await standIn(({ url = '' }, response) => {
    const newer = isChanged ? { ApiVersion: '1.52', MinAPIVersion: '1.44' } : { ApiVersion: '1.43' }
    if (url === '/version') response.end(JSON.stringify({ ...version, ...newer }))
    else if (isChanged && url.startsWith('/v1.43/'))
      response.writeHead(400).end('{"message":"client version 1.43 is too old. Minimum supported API version is 1.44"}')
    else response.end('{}')
  })
  await stand.engine.json('GET', '/info')
  isChanged = true
  await expect(stand.engine.json('GET', '/info')).rejects.toThrow('too old')
  await stand.engine.json('GET', '/info')
  expect(stand.asked.slice(2)).toEqual(['GET /v1.43/info', 'GET /version', 'GET /v1.47/info'])
})

test.each<[string, { version?: object; info?: object }, string]>([
  ['of Windows', { info: { OSType: 'windows' } }, 'engine_not_linux'],
  ['on another CPU', { version: { Arch: 's390x' } }, 'engine_platform_unsupported'],
  ['that is too old', { version: { ApiVersion: '1.39' } }, 'engine_api_unsupported'],
])('an engine %s is refused by name', async (_, more, code) => {
  await using stand = await standIn(answering(more))
  await expect(checkEngine(stand.engine)).rejects.toMatchObject({ code })
})

test('what an engine says of itself is understood', async () => {
  const SecurityOptions = ['name=seccomp,profile=default', 'name=rootless', 'name=userns', 'name=cgroupns']
  const more = { info: { SecurityOptions, LiveRestoreEnabled: true, Runtimes: { runc: {}, runsc: {} } } }
  await using stand = await standIn(answering({ ...more, version: { Arch: 'aarch64' } }))
  expect(await checkEngine(stand.engine)).toMatchObject({
    platform: 'linux/arm64',
    cgroup: 2,
    isRootless: true,
    hasUserns: true,
    liveRestore: true,
    runtimes: ['runc', 'runsc'],
  })
})

test('an engine that answers something else, or an error, is told as it is', async () => {
  await using page = await standIn((_, response) => response.end('<html>'))
  await expect(checkEngine(page.engine)).rejects.toThrow('its answer is not that of a Docker engine')
  await using proxy = await standIn((_, response) => response.writeHead(502).end('Bad Gateway'))
  const error = await checkEngine(proxy.engine).catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ code: 'engine_failed' })
  expect(String(error)).toContain('answered 502 to GET /version: Bad Gateway')
})

test('an engine that says nothing is given up after the limit of the call', async () => {
  await using stand = await standIn(({ url }, response) => {
    if (url === '/version') response.end(JSON.stringify(version))
  })
  const error = await stand.engine.json('GET', '/info', { timeoutMs: 50 }).catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ name: 'EngineFailure', status: undefined, engineSays: 'no answer within 0.05 s' })
  expect(engineProblem(error, stand.engine.address)).toMatchObject({ code: 'engine_unreachable' })
})

test('an answer that breaks off is no answer, and events go on with a new connection', async () => {
  let streams = 0
  await using stand = await standIn(({ url = '' }, response) => {
    if (url === '/version') response.end(JSON.stringify(version))
    else if (!url.includes('/events')) {
      response.writeHead(200, { 'content-length': 100 })
      response.write('{"half":')
      setImmediate(() => response.destroy())
    } else {
      // In pieces, with a sign that falls apart between two of them.
      const line = Buffer.from(
        `${JSON.stringify({ Type: 'container', Action: `é${++streams}`, Actor: { ID: 'c' } })}\n`,
      )
      const cut = line.indexOf(0xc3) + 1
      response.write(line.subarray(0, cut))
      setTimeout(() => response.write(line.subarray(cut)), 20)
      setTimeout(() => response.destroy(), 40)
    }
  })
  await expect(stand.engine.json('GET', '/info')).rejects.toMatchObject({ name: 'EngineFailure', status: undefined })
  const told: string[] = []
  const stop = new AbortController()
  const observer = {
    event: ({ Action }: { Action: string }) => {
      told.push(Action)
      if (Action === 'é2') stop.abort()
    },
    broken: () => told.push('broken'),
    restored: () => told.push('restored'),
  }
  await followEvents(stand.engine, { labels: ['a=b'], types: ['container'] }, observer, stop.signal)
  expect(told).toEqual(['restored', 'é1', 'broken', 'restored', 'é2'])
})

test('an engine that ends its events again and again is asked less and less often', async () => {
  await using stand = await standIn(({ url = '' }, response) =>
    response.end(url.endsWith('/version') ? JSON.stringify(version) : undefined),
  )
  const over = new AbortController()
  const startedAt = performance.now()
  let connections = 0
  const restored = () => {
    if (++connections === 6) over.abort(new Error('enough'))
  }
  const on = { event: () => {}, broken: () => {}, restored }
  await followEvents(stand.engine, { labels: [], types: ['container'] }, on, over.signal)
  // Five pauses of 0.1 to 0.2 s would be less.
  expect(performance.now() - startedAt).toBeGreaterThan(1_000)
})

test('an archive that breaks off tells that the engine is away', async () => {
  const archive = await tarOf([{ name: 'x', body: Buffer.alloc(10_000) }])
  await using stand = await standIn(({ url }, response) => {
    if (url === '/version') response.end(JSON.stringify(version))
    else response.write(archive.subarray(0, 5_000), () => setImmediate(() => response.destroy()))
  })
  const stream = await getArchive(stand.engine, 'x', { path: '/x' })
  const reading = (async () => {
    for await (const { body } of readTar(stream as IncomingMessage, { maxBytes: 1e6, maxEntries: 10 }))
      for await (const _ of body);
  })()
  await expect(reading).rejects.toSatisfy(isEngineAway)
})

test('a removal that somebody else has begun is waited for', async () => {
  let looks = 0
  await using stand = await standIn(({ url = '', method }, response) => {
    if (url === '/version') response.end(JSON.stringify(version))
    else if (method === 'DELETE')
      response.writeHead(409).end('{"message":"removal of container x is already in progress"}')
    else if (++looks < 3) response.end('{"Id":"x"}')
    else response.writeHead(404).end('{"message":"No such container: x"}')
  })
  await removeContainer(stand.engine, 'x')
  expect(looks).toBe(3)
})

test('an engine that never says that it takes a body gets it after a second', async () => {
  const bodyOf = async (request: IncomingMessage) => {
    let text = ''
    for await (const chunk of request) text += chunk
    return text
  }
  let got: string | undefined
  await using stand = await standIn(async (request, response) => {
    if (request.url === '/version') return void response.end(JSON.stringify(version))
    got = await bodyOf(request)
    response.end('{}')
  })
  await stand.engine.json('PUT', '/containers/x/archive', {
    archive: Readable.from([Buffer.from('a'), Buffer.from('b')]),
  })
  expect(got).toBe('ab')
})

test('neither bodies nor logins in addresses are in errors and logs', async () => {
  await using stand = await standIn(({ url = '' }, response) => {
    if (url === '/version') response.end(JSON.stringify(version))
    else response.writeHead(500).end('{"message":"Get https://ada:hunter2@proxy.example/x?sig=abc123: nope"}')
  })
  const body = { Env: ['KEY=body-secret'] }
  const request = { body, headers: { 'X-Registry-Auth': 'header-secret' }, query: { name: 'n' } }
  const error = (await stand.engine
    .json('POST', '/containers/create', request)
    .catch((thrown) => thrown)) as EngineFailure
  expect(error.message).toBe('Docker engine, POST /containers/create: answered 500: Get https://proxy.example/x nope')
  const problem = engineProblem(error, stand.engine.address)
  expect(problem).toBeInstanceOf(AppError)
  const everything = [error.message, error.stack, problem.message, JSON.stringify(problem), ...stand.lines].join()
  expect(everything).not.toMatch(/hunter2|abc123|body-secret|header-secret/)
})
