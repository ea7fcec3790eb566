import OzAPI from 'oz-agent-sdk'
import { expect, test } from 'vitest'
import { type SdkScene, startSdkScene } from './support/sdk-scene.ts'
import { startUnreliableRelay } from './support/unreliable-relay.ts'

/** The published SDK for JavaScript, unchanged: it is told address and key, and nothing else. Schedules are not tested: they have no route. */
const sdkOf = ({ cp, baseUrl }: SdkScene, baseURL = baseUrl) => new OzAPI({ baseURL, apiKey: cp.adminKey })

test('the SDK starts runs, with images and in a conversation, and shows them', async () => {
  await using scene = await startSdkScene()
  const { agent } = sdkOf(scene)
  const started = await agent.run({
    prompt: 'Look at it',
    title: 'Look',
    team: true,
    config: { name: 'look', environment_id: scene.environmentId, base_prompt: 'Be brief.', worker_host: 'nobody' },
    images: [{ data: Buffer.from('not much of an image').toString('base64'), mime_type: 'image/png' }],
  })
  expect(started).toMatchObject({ run_id: started.task_id, state: 'QUEUED' })
  expect(await agent.runs.retrieve(started.run_id)).toMatchObject({
    run_id: started.run_id,
    task_id: started.run_id,
    title: 'Look',
    prompt: 'Look at it',
    state: 'QUEUED',
    source: 'API',
    scope: { type: 'Team' },
    agent_config: { name: 'look', environment_id: scene.environmentId, worker_host: 'nobody' },
  })
  expect(await scene.cp.db.query('select id from attachments')).toHaveLength(1)
  const more = await agent.run({ prompt: 'And now?', conversation_id: scene.doneConversationId })
  expect(await agent.runs.retrieve(more.run_id)).toMatchObject({ conversation_id: scene.doneConversationId })
})

test('the SDK is told what a run made', async () => {
  await using scene = await startSdkScene()
  const run = await sdkOf(scene).agent.runs.retrieve(scene.doneRunId)
  expect(run).toMatchObject({
    state: 'SUCCEEDED',
    status_message: { message: 'All is done.' },
    session_id: scene.doneSessionId,
    artifacts: expect.arrayContaining([
      {
        artifact_type: 'PLAN',
        created_at: expect.any(String),
        data: expect.objectContaining({ document_uid: 'plan-1' }),
      },
      {
        artifact_type: 'PULL_REQUEST',
        created_at: expect.any(String),
        data: { url: 'https://git.test/acme/shop/pull/1', branch: 'search' },
      },
    ]),
  })
})

test('the SDK lists runs by everything that it can ask for', async () => {
  await using scene = await startSdkScene()
  const { agent } = sdkOf(scene)
  const { uid: me } = await scene.cp.client.whoami()
  const { doneRunId: done, waitingRunId: waiting, environmentId } = scene
  const found = async (query: OzAPI.Agent.RunListParams) =>
    (await agent.runs.list(query)).runs.map(({ run_id }) => run_id).sort()
  const both = [done, waiting].sort()
  expect(await found({})).toEqual(both)
  expect(await found({ state: ['QUEUED', 'FAILED'] })).toEqual([waiting])
  expect(await found({ state: ['QUEUED', 'SUCCEEDED'] })).toEqual(both)
  expect(await found({ artifact_type: 'PULL_REQUEST' })).toEqual([done])
  expect(await found({ environment_id: environmentId })).toEqual([waiting])
  expect(await found({ environment_id: 'empty-environment' })).toEqual([done])
  expect(await found({ name: 'nightly' })).toEqual([waiting])
  expect(await found({ q: 'needle search' })).toEqual([waiting])
  expect(await found({ creator: me })).toEqual(both)
  expect(await found({ source: 'API', created_after: '2020-01-01T00:00:00Z' })).toEqual(both)
  expect(await found({ created_before: '2020-01-01T00:00:00Z' })).toEqual([])
  expect(await found({ updated_after: '2020-01-01T00:00:00Z' })).toEqual(both)
  for (const nothing of [
    { schedule_id: 's' },
    { skill: 'acme/shop:review' },
    { skill_spec: 'acme/shop:review' },
    { model_id: 'none/such' },
    { source: 'SLACK' as const },
  ])
    expect([nothing, await found(nothing)]).toEqual([nothing, []])

  const first = await agent.runs.list({ limit: 1 })
  expect(first.page_info).toMatchObject({ has_next_page: true, next_cursor: expect.any(String) })
  const cursor = first.page_info.next_cursor ?? ''
  const second = await agent.runs.list({ limit: 1, cursor })
  expect([...first.runs, ...second.runs].map(({ run_id }) => run_id).sort()).toEqual(both)
})

test('the SDK cancels runs, lists agents, and says what is wrong', async () => {
  await using scene = await startSdkScene()
  const { agent } = sdkOf(scene)
  expect(await agent.runs.cancel(scene.waitingRunId)).toBe(scene.waitingRunId)
  expect(await agent.runs.retrieve(scene.waitingRunId)).toMatchObject({ state: 'CANCELLED' })
  expect(await agent.list({ repo: 'acme/shop', refresh: true, sort_by: 'last_run' })).toEqual({ agents: [] })

  await expect(agent.runs.retrieve('nope')).rejects.toBeInstanceOf(OzAPI.NotFoundError)
  await expect(agent.runs.retrieve('nope')).rejects.toThrow(/nope/)
  await expect(agent.runs.list({ limit: 0 })).rejects.toBeInstanceOf(OzAPI.BadRequestError)
  await expect(agent.run({ skill: 'acme/shop:review' })).rejects.toMatchObject({
    status: expect.any(Number),
    message: /./,
  })
  await expect(agent.run({ prompt: 'x', config: { mcp_servers: { a: { command: 'x' } } } })).rejects.toBeInstanceOf(
    OzAPI.UnprocessableEntityError,
  )
  const stranger = new OzAPI({ baseURL: scene.baseUrl, apiKey: 'wk-unknown-unknown' })
  await expect(stranger.agent.runs.list()).rejects.toBeInstanceOf(OzAPI.AuthenticationError)
})

test('a run whose answer was lost on the way is started once, whatever the SDK repeats', async () => {
  await using scene = await startSdkScene()
  await using relay = await startUnreliableRelay(scene.cp.url, { losesAnswers: 2 })
  const { agent } = sdkOf(scene, `${relay.url}/api/v1`)
  const started = await agent.run({ prompt: 'once', config: { name: 'once' } })
  expect(relay.posts).toBe(3)
  expect((await agent.runs.list({ name: 'once' })).runs.map(({ run_id }) => run_id)).toEqual([started.run_id])
  // Another call is another run, although it says the same.
  const again = await agent.run({ prompt: 'once', config: { name: 'once' } })
  expect(again.run_id).not.toBe(started.run_id)
})
