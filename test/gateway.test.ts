import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SessionEvent, TaskAssignment } from '@openoz/protocol'
import { readServerOptions, startGatewayServer } from '@openoz/server'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { startScriptedModel } from './support/scripted-model.ts'

const key = 'sk-provider-123'
const usage = { input: 100, output: 20, cached: 40, cacheWrite: 10 }

const anthropicEnv = (url: string) => ({ ANTHROPIC_API_KEY: key, ANTHROPIC_BASE_URL: url })
const tokenOf = (assignment: TaskAssignment) => assignment.execution_token ?? ''

function callMessages(url: string, token: string, headers: object = {}) {
  return fetch(`${url}/llm/anthropic/v1/messages`, {
    method: 'POST',
    headers: { 'x-api-key': token, 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ model: 'anthropic/claude-sonnet-4-5', max_tokens: 9, messages: [], stream: true }),
  })
}

async function usageEvents(cp: ControlPlane, runId: string, atLeast = 1): Promise<SessionEvent[]> {
  const read = async () => (await cp.eventsOf(runId)).filter(({ type }) => type === 'usage')
  return until(read, (events) => events.length >= atLeast)
}

/** As the wire's figures are stored. */
const counted = {
  input_tokens: 50,
  output_tokens: 20,
  cache_read_tokens: 40,
  cache_write_tokens: 10,
  reasoning_tokens: 0,
}
/** 50 × 3 $ + 20 × 15 $ + 40 × 0.30 $ + 10 × 3.75 $, per million. */
const cost_usd = 0.0004995

test('the execution’s token opens models from the claim on, without a hello, and until its end', async () => {
  await using model = await startScriptedModel({
    handler: () => ({ text: 'hi', usage }),
    models: ['claude-sonnet-4-5'],
    apiKey: key,
  })
  await using cp = await startControlPlane({ env: anthropicEnv(model.url) })
  const worker = await cp.connectWorker()
  const runId = await cp.createRun()
  const assignment = await worker.nextAssignment()
  const token = tokenOf(assignment)

  const offered = await callMessages(cp.url, token)
  expect([offered.status, offered.headers.get('x-oz-error-code')]).toEqual([401, 'execution_token_ended'])
  expect(await offered.json()).toMatchObject({ type: 'error', error: { type: 'authentication_error' } })

  worker.claim(assignment)
  await until(async () => (await callMessages(cp.url, token)).status === 200)
  for (const header of [{ authorization: `Bearer ${token}` }, { 'x-goog-api-key': token }])
    expect((await callMessages(cp.url, '', header)).status).toBe(200)
  expect(model.requests.every(({ headers }) => headers['x-api-key'] === key)).toBe(true)

  const events = await usageEvents(cp, runId, 3)
  expect(events).toHaveLength(3)
  for (const event of events) {
    expect(event.execution_id).toBe(assignment.execution_id)
    expect(event.data).toEqual({
      model: 'anthropic/claude-sonnet-4-5',
      provider: 'anthropic',
      ...counted,
      cost_usd,
    })
  }
  const run = (await cp.client.runs.get(runId)) as unknown as { usage: object }
  expect(run.usage).toEqual({
    requests: 3,
    input_tokens: 150,
    output_tokens: 60,
    cache_read_tokens: 120,
    cache_write_tokens: 30,
    reasoning_tokens: 0,
    cost_usd: expect.closeTo(3 * cost_usd, 6),
  })

  const userKey = await callMessages(cp.url, cp.adminKey)
  expect([userKey.status, userKey.headers.get('x-oz-error-code')]).toEqual([403, 'not_authorized'])

  worker.complete(assignment)
  const from = performance.now()
  const refused = await until(
    () => callMessages(cp.url, token),
    ({ status }) => status !== 200,
  )
  expect(refused.status).toBe(401)
  expect(performance.now() - from).toBeLessThan(3_000)
})

test('a gateway of its own serves models and nothing else, and its usage reaches viewers at once', async () => {
  await using model = await startScriptedModel({
    handler: () => ({ text: 'hi', usage }),
    models: ['claude-sonnet-4-5'],
  })
  await using cp = await startControlPlane({ env: { OZ_GATEWAY_URL: 'http://gateway.example:4748' } })
  const options = readServerOptions(
    { listen: '127.0.0.1:0', databaseUrl: cp.database.url },
    { ...anthropicEnv(model.url), OZ_DATA_DIR: '/nowhere' },
  )
  const gateway = await startGatewayServer(options, { log: pino({ level: 'silent' }) })
  try {
    await until(async () => (await fetch(`${gateway.url}/readyz`)).status === 200)
    expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200)
    const other = await fetch(`${gateway.url}/api/v1/agent/runs`)
    expect([other.status, ((await other.json()) as { code: string }).code]).toEqual([404, 'route_not_found'])

    const worker = await cp.connectWorker()
    const runId = await cp.createRun()
    const assignment = await worker.claimNext()
    const watching = new AbortController()
    const seen = (async () => {
      for await (const { event, data } of cp.view(runId, { signal: watching.signal }))
        if (event === 'usage') return JSON.parse(data) as SessionEvent
      throw new Error('the stream ended without usage')
    })()
    await until(async () => (await callMessages(gateway.url, tokenOf(assignment))).status === 200)
    expect((await seen).data).toMatchObject({ ...counted, cost_usd })
    watching.abort()
    const metrics = await (await fetch(`${gateway.url}/metrics`)).text()
    expect(metrics).toMatch(/oz_gateway_calls_total\{end="ended".*\} [1-9]/)
    expect(metrics).toMatch(/oz_gateway_usage_waiting\{.*\} 0/)
    expect(metrics).not.toContain('oz_runs')

    // What was said last is written before the process is gone.
    await (await callMessages(gateway.url, tokenOf(assignment))).text()
    await gateway.stop()
    expect((await cp.eventsOf(runId)).filter(({ type }) => type === 'usage')).toHaveLength(2)
  } finally {
    await gateway.stop()
  }
})

test('the models say which providers are usable, under names of one’s own too, and why the others are not', async () => {
  await using model = await startScriptedModel({ models: ['m'], apiKey: key })
  const folder = mkdtempSync(join(tmpdir(), 'oz-gateway-'))
  const file = join(folder, 'providers.json')
  writeFileSync(
    file,
    JSON.stringify([
      { name: 'team-gpu', type: 'openai-compatible', base_url: `${model.url}/v1`, api_key_env: 'GPU_KEY' },
      { name: 'wrong-key', type: 'anthropic', base_url: model.url, api_key_env: 'OTHER_KEY' },
      { name: 'no-key', type: 'google', api_key_env: 'NOT_SET' },
    ]),
  )
  const env = { OZ_PROVIDERS_FILE: file, GPU_KEY: key, OTHER_KEY: 'sk-other', GEMINI_API_KEY: key }
  await using cp = await startControlPlane({ env: { ...env, GOOGLE_GEMINI_BASE_URL: model.url } })
  rmSync(folder, { recursive: true })
  const { models, providers } = await cp.client.models.list()
  expect(models.map(({ id }) => id)).toEqual(['google/m', 'team-gpu/m'])
  expect(providers).toEqual([
    { name: 'google', usable: true, models: 1 },
    { name: 'team-gpu', usable: true, models: 1 },
    { name: 'wrong-key', usable: false, models: 0, reason: 'it refuses the key (401)' },
    { name: 'anthropic', usable: false, models: 0, reason: 'ANTHROPIC_API_KEY is not set' },
    { name: 'openai', usable: false, models: 0, reason: 'OPENAI_API_KEY is not set' },
    { name: 'bedrock', usable: false, models: 0, reason: 'AWS_BEARER_TOKEN_BEDROCK is not set' },
    {
      name: 'azure',
      usable: false,
      models: 0,
      reason: 'AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT are not set',
    },
    { name: 'ollama', usable: false, models: 0, reason: 'OLLAMA_HOST is not set' },
    { name: 'no-key', usable: false, models: 0, reason: 'NOT_SET is not set' },
  ])
})

test('agents are told where a gateway of its own is', async () => {
  await using model = await startScriptedModel({ models: ['claude-sonnet-4-5'] })
  await using cp = await startControlPlane({
    env: { ...anthropicEnv(model.url), OZ_GATEWAY_URL: 'http://gateway.example:4748/' },
  })
  const { hello } = await cp.startAgent()
  expect(hello.model).toEqual({
    id: 'anthropic/claude-sonnet-4-5',
    wire: 'anthropic-messages',
    base_path: '/llm/anthropic/v1',
    base_url: 'http://gateway.example:4748',
    context_window: 200_000,
    vision: true,
  })
})

test('a gateway of its own refuses the embedded database, and waits for one that nobody has prepared', async () => {
  const log = pino({ level: 'silent' })
  await expect(startGatewayServer(readServerOptions({}, {}), { log })).rejects.toMatchObject({
    code: 'option_invalid',
    message: expect.stringContaining('DATABASE_URL'),
  })
  await using cp = await startControlPlane({ isStopped: true, isEmpty: true })
  const options = readServerOptions({ listen: '127.0.0.1:0', databaseUrl: cp.database.url }, {})
  const gateway = await startGatewayServer(options, { log })
  try {
    expect((await fetch(`${gateway.url}/readyz`)).status).toBe(503)
    expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200)
    await cp.addServer()
    await until(async () => (await fetch(`${gateway.url}/readyz`)).status === 200)
  } finally {
    await gateway.stop()
  }
})

test('a database that restarts during a call costs neither the stream nor its usage, and new calls wait for it', async () => {
  const pieces = Array.from({ length: 300 }, (_, i) => `word${i} `)
  let answers = 0
  await using model = await startScriptedModel({
    // The first one lasts longer than the restart.
    handler: () => (answers++ === 0 ? { text: pieces, pieceDelayMs: 15, usage } : { text: 'hi', usage }),
    models: ['claude-sonnet-4-5'],
  })
  await using cp = await startControlPlane({ isStopped: true, env: anthropicEnv(model.url) })
  const server = await cp.addServer({ databaseUrl: '' })
  const client = cp.clientFor(cp.adminKey, server.url)
  const worker = await cp.connectWorker({ serverUrl: server.url })
  const { run_id } = await client.runs.create({ prompt: 'x' })
  const assignment = await worker.claimNext()
  const token = tokenOf(assignment)
  await cp.agentFor(assignment, server.url).hello()

  const streaming = await callMessages(server.url, token)
  expect(streaming.status).toBe(200)
  const text = streaming.text()
  const [pid] = readFileSync(join(server.dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')
  process.kill(Number(pid), 'SIGKILL')
  await until(async () => (await fetch(`${server.url}/readyz`)).status === 503)
  // What was good a second ago is believed: wait until it must be asked for.
  const held = (async () => {
    const statuses: number[] = []
    for (let i = 0; i < 10; i++) {
      const response = await callMessages(server.url, token)
      await response.text()
      statuses.push(response.status)
    }
    return statuses
  })()
  expect(await held).toEqual(Array(10).fill(200))
  const whole = await text
  for (const piece of pieces) expect(whole).toContain(JSON.stringify(piece))
  await until(async () => (await fetch(`${server.url}/readyz`)).status === 200, Boolean, { timeoutMs: 20_000 })

  const read = async () =>
    (await client.runs.events(run_id, { limit: 500 })).events.filter(({ type }) => type === 'usage')
  const events = await until(read, ({ length }) => length === 11)
  for (const { data } of events) expect(data).toMatchObject(counted)
  expect(cp.errors.splice(0)).toEqual([expect.stringContaining('PostgreSQL has ended by itself')])
})
