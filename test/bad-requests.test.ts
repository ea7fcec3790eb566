import { request } from 'node:http'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'

const create = (cp: ControlPlane, init: Parameters<ControlPlane['request']>[2]) =>
  cp.request('POST', '/api/v1/agent/runs', init)

test('every refusal is a problem document that says what to do', async () => {
  await using cp = await startControlPlane()
  const answer = await cp.request('GET', '/api/v1/agent/runs/nothing')
  expect(answer.headers.get('content-type')).toBe('application/problem+json')
  expect(answer.headers.get('x-should-retry')).toBe('false')
  expect(answer.body).toEqual({
    type: `${cp.url}/errors/run_not_found`,
    title: 'No such run',
    status: 404,
    detail: 'No run that you may see has the id nothing. List runs with `oz run list`.',
    instance: '/api/v1/agent/runs/nothing',
    error: 'resource_not_found',
    code: 'run_not_found',
    message: 'No run that you may see has the id nothing. List runs with `oz run list`.',
    retryable: false,
    trace_id: expect.any(String),
  })
})

const refused = [
  ['malformed JSON', { body: '{"prompt":', headers: { 'content-type': 'application/json' } }, 'json_malformed'],
  ['no body', { body: '', headers: { 'content-type': 'application/json' } }, 'json_malformed'],
  [
    'a form',
    { body: 'prompt=x', headers: { 'content-type': 'application/x-www-form-urlencoded' } },
    'content_type_unsupported',
  ],
  ['no JSON object', { json: 'x' }, 'invalid_request'],
  ['no prompt', { json: {} }, 'prompt_empty'],
  ['a prompt that is no text', { json: { prompt: 5 } }, 'invalid_request'],
  ['an empty prompt', { json: { prompt: '' } }, 'prompt_empty'],
  ['a blank prompt', { json: { prompt: ' \n\t' } }, 'prompt_empty'],
  ['a prompt of 5 MB', { json: { prompt: 'é'.repeat(2_500_000) } }, 'prompt_too_large'],
  ['an unknown key', { json: { prompt: 'x', promt: 'y' } }, 'invalid_request'],
  ['an unknown config key', { json: { prompt: 'x', config: { wroker_host: 'y' } } }, 'invalid_request'],
  [
    'an environment that is not there',
    { json: { prompt: 'x', config: { environment_id: 'e' } } },
    'environment_not_found',
  ],
  ['another harness', { json: { prompt: 'x', config: { harness: { type: 'claude' } } } }, 'harness_unknown'],
  ['MCP servers', { json: { prompt: 'x', config: { mcp_servers: {} } } }, 'operation_not_supported'],
  ['computer use', { json: { prompt: 'x', config: { computer_use_enabled: true } } }, 'operation_not_supported'],
  ['an unknown parent', { json: { prompt: 'x', parent_run_id: crypto.randomUUID() } }, 'run_not_found'],
  [
    'a folder outside',
    { json: { prompt: 'x', config: { environment: { source_repos: [{ url: 'a/b', dir: '../c' }] } } } },
    'invalid_request',
  ],
] as const

test('a run that cannot be started as asked is refused, and nothing is left of it', async () => {
  await using cp = await startControlPlane()
  for (const [what, init, code] of refused) {
    const { status, body } = await create(cp, init)
    expect([what, body.code, body.retryable, status >= 400 && status < 500]).toEqual([what, code, false, true])
  }
  expect((await cp.client.runs.list()).runs).toEqual([])
})

test('a body that is no JSON by its type is refused in words about the type, and one without a type is read as JSON', async () => {
  await using cp = await startControlPlane()
  for (const type of ['application/x-www-form-urlencoded', 'text/json', 'text/plain;charset=UTF-8']) {
    const { status, body } = await create(cp, { body: '{"prompt":"x"}', headers: { 'content-type': type } })
    expect([type, status, body.code]).toEqual([type, 415, 'content_type_unsupported'])
    expect(body.detail).toBe(
      `The Content-Type of the body is ${type}. Send JSON with \`Content-Type: application/json\`.`,
    )
  }
  const withoutType = (text: string) =>
    new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${cp.adminKey}` }
      const upload = request(`${cp.url}/api/v1/agent/runs`, { method: 'POST', agent: false, headers })
      upload.on('response', (response) => {
        response.resume()
        resolve(response.statusCode)
      })
      upload.on('error', reject)
      upload.end(text)
    })
  expect(await withoutType('{"prompt":"x"}')).toBe(200)
  expect(await withoutType('prompt=x')).toBe(400)
})

test('a refusal names the field', async () => {
  await using cp = await startControlPlane()
  const answer = await create(cp, { json: { prompt: 'x', config: { wroker_host: 'y' } } })
  expect(answer.body.detail).toContain('Unrecognized key: "wroker_host"')
  expect(answer.body.issues).toEqual([{ path: 'config', message: 'Unrecognized key: "wroker_host"' }])
})

test('a body over 8 MB is refused, with its length or without', async () => {
  await using cp = await startControlPlane()
  const path = `/api/v1/agent/runs/${await cp.createRun()}/followups`
  const body = JSON.stringify({ message: 'x'.repeat(9_000_000) })
  const headers = { 'content-type': 'application/json' }
  expect(await cp.request('POST', path, { body, headers })).toMatchObject({
    status: 413,
    body: { code: 'body_too_large' },
  })
  const status = await new Promise((resolve, reject) => {
    const upload = request(cp.url + path, {
      method: 'POST',
      agent: false,
      headers: {
        authorization: `Bearer ${cp.adminKey}`,
        'content-type': 'application/json',
        'transfer-encoding': 'chunked',
      },
    })
    upload.on('response', (response) => {
      response.resume()
      resolve(response.statusCode)
    })
    upload.on('error', reject)
    upload.end(body)
  })
  expect(status).toBe(413)
})

test('a model that no provider has is refused with the usable ones, and none at all is taken', async () => {
  await using cp = await startControlPlane()
  // Without any provider the run is taken: its agent says where to set one.
  const { run_id } = await cp.client.runs.create({ prompt: 'x', config: { model_id: 'anthropic/none' } })
  expect((await cp.client.runs.get(run_id)).agent_config.model_id).toBe('anthropic/none')
  const list = await cp.client.models.list()
  expect(list).toMatchObject({ default_model_id: '', models: [], problems: [] })
  expect(list.providers.every(({ usable, reason }) => !usable && reason?.includes('not set'))).toBe(true)
})

test('NUL, lone surrogates and 4-byte characters in a request are stored as far as they can be', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun({
    prompt: 'nul \0 lone \ud800 pair 😀',
    title: '\0title😀',
    config: { name: 'n\0', base_prompt: 'b \ud800', worker_host: 'w\0', environment: { setup_commands: ['echo \0'] } },
  })
  const run = await cp.client.runs.get(runId)
  expect(run).toMatchObject({
    prompt: 'nul \ufffd lone \ufffd pair 😀',
    title: '\ufffdtitle😀',
    agent_config: { name: 'n\ufffd', base_prompt: 'b \ufffd', environment: { setup_commands: ['echo \ufffd'] } },
  })
  expect((await cp.eventsOf(runId))[1]?.data).toMatchObject({ text: 'nul \ufffd lone \ufffd pair 😀', turn: 1 })
  const key = await cp.client.apiKeys.create({ name: 'k\0 😀' }).catch((error) => error.problem.code)
  expect(key).toBe('invalid_request')
})

test('a title is made of the prompt’s first line', async () => {
  await using cp = await startControlPlane()
  const short = await cp.createRun({ prompt: '\n  fix it\nand more' })
  expect((await cp.client.runs.get(short)).title).toBe('fix it')
  const long = await cp.createRun({ prompt: 'word '.repeat(100) })
  expect((await cp.client.runs.get(long)).title).toHaveLength(80)
})

test('what is no route is not found, in words', async () => {
  await using cp = await startControlPlane()
  const paths = [
    '/api/v1/nothing',
    '/api/v1',
    '/nothing',
    '/api/v2/agent/runs',
    '/errors/nothing',
    '/errors/constructor',
    '/',
  ]
  for (const path of paths) {
    const { status, body } = await cp.request('GET', path)
    expect([path, status, body.code]).toEqual([path, 404, 'route_not_found'])
    expect(body.detail).toContain(`Nothing answers GET ${path}.`)
  }
  // Another method on a known path is none either.
  expect(await cp.request('DELETE', '/api/v1/agent/runs')).toMatchObject({ status: 404 })
})

test('metrics tell the runs that are not over', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun({ config: { worker_host: 'nobody' } })
  await cp.connectWorker({ workerId: 'other' })
  const { body } = await cp.request<string>('GET', '/metrics', { key: null })
  const runs = (text: string) =>
    Object.fromEntries([...text.matchAll(/^oz_runs\{.*?state="(\w+)".*\} (\d+)/gm)].map(([, state, n]) => [state, n]))
  const none = { QUEUED: '0', PENDING: '0', CLAIMED: '0', INPROGRESS: '0', BLOCKED: '0' }
  expect(runs(body)).toEqual({ ...none, QUEUED: '1' })
  expect(body).toMatch(/^oz_server_worker_connections.* 1$/m)
  // Also of the states that had some.
  await cp.client.runs.cancel(runId)
  expect(runs((await cp.request<string>('GET', '/metrics', { key: null })).body)).toEqual(none)
})

test('what a request asks for and this server lacks is refused by its name', async () => {
  await using cp = await startControlPlane()
  const unsupported = [
    ...[{ skill: 'a/b' }, { agent_identity_uid: 'x' }, { on_behalf_of: 'x' }],
    ...['runner_id', 'credential_strategy', 'inference_providers', 'memory_stores', 'session_sharing', 'skills'].map(
      (key) => ({ config: { [key]: 'x' } }),
    ),
    ...[{ config: { mcp_servers: {} } }, { config: { skill_spec: 'x' } }, { config: { computer_use_enabled: true } }],
    ...[{ config: { harness: { model_id: 'x' } } }, { config: { harness: { type: 'oz', reasoning_level: 'high' } } }],
  ]
  for (const request of unsupported) {
    const { status, body } = await cp.request('POST', '/api/v1/agent/runs', { json: { prompt: 'x', ...request } })
    expect([request, status, body.code]).toEqual([request, 422, 'operation_not_supported'])
    const path = Object.entries(request).flatMap(([key, value]) =>
      typeof value === 'object' ? Object.keys(value) : [key],
    )
    expect(body.detail).toContain(path[0])
  }
  const ill = [{ metadata: { k: 1 } }, { metadata: { '': 'x' } }, { metadata: { k: 'x'.repeat(513) } }]
  const many = { metadata: Object.fromEntries(Array.from({ length: 21 }, (_, i) => [`k${i}`, 'x'])) }
  for (const request of [...ill, many, { mode: 'other' }, { share: [{ subject: 'all', access: 'view' }] }])
    expect(
      await cp.request('POST', '/api/v1/agent/runs', { json: { prompt: 'x', ...request } }),
      JSON.stringify(request),
    ).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
  expect((await cp.client.runs.list()).runs).toEqual([])
})
