import { randomUUID } from 'node:crypto'
import type { PrepareAttachmentsResponse, TaskAssignment } from '@openoz/protocol'
import { workerProtocolHeader, workerProtocolVersion } from '@openoz/protocol/schemas'
import type { ApiRequest } from './api-contract.ts'
import type { SdkScene } from './sdk-scene.ts'
import { readServerSentEvents } from './server-sent-events.ts'
import { TestAgent } from './test-agent.ts'

/** For each operation of the document: requests that are answered with these statuses. Those that are the same for many are in the test. */
export interface ContractRequests {
  /** The success. Each call makes a request of its own, for something that nothing else has used up. */
  good: Record<string, () => ApiRequest | Promise<ApiRequest>>
  special: Record<string, Record<number, () => ApiRequest | Promise<ApiRequest>>>
}

export async function contractRequests(scene: SdkScene): Promise<ContractRequests> {
  const { cp, doneRunId, doneConversationId, environmentId, waitingRunId, baseUrl } = scene
  const unknown = randomUUID()
  const newRun = () => cp.createRun({ config: { worker_host: 'nobody' } })
  const environment = async () => (await cp.client.environments.create({ name: `e-${randomUUID()}` })).uid
  const message = async (): Promise<string> => {
    const to = await newRun()
    const request = { sender_run_id: waitingRunId, to: [to], subject: 'Hi', body: 'there' }
    const { body } = await cp.request<{ message_ids: string[] }>('POST', '/api/v1/agent/messages', { json: request })
    return body.message_ids[0] ?? ''
  }
  const files = [{ filename: 'a.txt', mime_type: 'text/plain' }]
  const prepared = async () => {
    const path = `/api/v1/agent/runs/${waitingRunId}/attachments/prepare`
    const { body } = await cp.request<PrepareAttachmentsResponse>('POST', path, { json: { files } })
    const { attachment_id: attachmentId = '', upload_url: link = '' } = body.attachments[0] ?? {}
    return { attachmentId, link }
  }
  /** A signed link as parameters. */
  const linked = (link: string, name: string): ApiRequest => {
    const { pathname, searchParams } = new URL(link, cp.url)
    return { key: null, path: { [name]: pathname.split('/').at(-1) ?? '' }, query: Object.fromEntries(searchParams) }
  }
  const fileLink = async () => {
    const artifact = await cp.client.artifacts.get(scene.fileUid)
    return linked(artifact.artifact_type === 'FILE' ? artifact.data.download_url : '', 'blobId')
  }
  const transcriptLink = async (runId: string) => {
    const headers = { authorization: `Bearer ${cp.adminKey}` }
    const answer = await fetch(`${baseUrl}/agent/runs/${runId}/transcript`, { headers, redirect: 'manual' })
    return linked(answer.headers.get('location') ?? '', 'runId')
  }
  /** Past the foreign keys, as if it had never been. */
  const forget = (table: string, id: string | undefined) =>
    cp.db.query(
      `set session_replication_role = replica; delete from ${table} where id = '${id}'; reset session_replication_role`,
    )
  const done = { path: { runId: doneRunId } }
  const conversation = { path: { conversationId: doneConversationId } }
  const run = () => ({ json: { prompt: 'x', metadata: { a: 'b' } } })
  const elsewhere = () => ({ json: { prompt: 'x', conversation_id: unknown } })
  const unsupported = () => ({ json: { prompt: 'x', config: { mcp_servers: { a: { command: 'x' } } } } })
  const starts = { 404: elsewhere, 422: unsupported }
  const query = (parameters: ApiRequest['query']) => () => ({ ...(parameters && { query: parameters }) })
  const lists = { 400: query({ limit: '0' }), 404: query({ ancestor_run_id: unknown }) }
  const forkable = async () => {
    const { agent, worker, assignment, runId } = await cp.startAgent()
    await agent.checkpoint(1, '{}')
    await agent.end('SUCCEEDED')
    await agent.nextTurn(true)
    worker.complete(assignment)
    await cp.waitFor(runId, 'SUCCEEDED')
    await worker.disconnect()
    return runId
  }
  const joinToken = async (workerId?: string) =>
    (await cp.client.workers.createJoinToken({ worker_id: workerId })).token
  const joining = () => ({
    // Each a worker of its own: a token for any worker takes no name that has a key.
    worker_id: `build-${randomUUID()}`,
    host: 'build',
    platform: 'linux/x64',
    nonce: randomUUID().replaceAll('-', ''),
  })
  const workerKey = async () =>
    (await cp.client.apiKeys.create({ name: `k-${randomUUID()}`, scope: 'worker', worker_id: 'w' })).raw_api_key
  const heartbeat = { type: 'heartbeat', data: {} }
  /** Open until its worker has been silent for too long. */
  const openChannel = async (): Promise<string> => {
    const headers = { [workerProtocolHeader]: String(workerProtocolVersion) }
    const events = readServerSentEvents(`${baseUrl}/selfhosted/worker/channel?worker_id=by-http`, {
      key: cp.adminKey,
      headers,
    })
    const { value } = await events.next()
    return (JSON.parse(value?.data ?? '{}') as { channel_id: string }).channel_id
  }
  const forkableRunId = await forkable()
  const { conversation_id: forkableId } = await cp.client.runs.get(forkableRunId)

  return {
    good: {
      runAgent: run,
      createRun: run,
      startLocalRun: () => ({ json: { prompt: 'x', host: 'laptop' } }),
      listRuns: query({ state: ['QUEUED', 'SUCCEEDED'], 'metadata[ticket_id]': 'SHOP-7' }),
      listTasks: query({}),
      getRun: () => done,
      getTask: () => done,
      submitRunFollowup: () => ({ path: { runId: waitingRunId }, json: { message: 'more' } }),
      forkRun: () => ({ path: { runId: forkableRunId }, json: { prompt: 'otherwise' } }),
      cancelRun: async () => ({ path: { runId: await newRun() } }),
      cancelTask: async () => ({ path: { runId: await newRun() } }),
      listExecutions: () => done,
      explainRun: () => done,
      getWorkspace: () => done,
      getRunConversation: () => done,
      getConversation: () => conversation,
      forkConversation: () => ({ path: { conversationId: forkableId }, json: { title: 'copy' } }),
      renameConversation: () => ({ ...conversation, json: { title: 'other' } }),
      getSessionRedirect: () => ({ path: { sessionUuid: scene.doneSessionId } }),
      getConversationRedirect: () => conversation,
      listEvents: () => done,
      streamEvents: () => done,
      streamAgentEvents: query({ run_ids: doneRunId }),
      pollAgentEvents: query({ run_ids: [doneRunId, waitingRunId] }),
      reportAgentEvent: () => ({ path: { runId: waitingRunId }, json: { event_type: 'run_succeeded' } }),
      listEnvironments: query({ sort_by: 'name' }),
      createEnvironment: () => ({ json: { name: 'other', setup_commands: ['make'] } }),
      getEnvironment: () => ({ path: { uid: environmentId } }),
      replaceEnvironment: () => ({ path: { uid: environmentId }, json: { name: 'shop' } }),
      deleteEnvironment: async () => ({ path: { uid: await environment() } }),
      sendAgentMessage: async () => ({
        json: { sender_run_id: waitingRunId, to: [await newRun()], subject: 'Hi', body: 'there' },
      }),
      listAgentMessages: () => ({ path: { runId: waitingRunId }, query: { unread: 'true' } }),
      readAgentMessage: async () => ({ path: { messageId: await message() } }),
      markAgentMessageDelivered: async () => ({ path: { messageId: await message() } }),
      getArtifact: () => ({ path: { artifactUid: scene.fileUid } }),
      uploadArtifact: () => ({ query: { run_id: doneRunId, filepath: 'a.txt' }, body: 'bytes' }),
      prepareAttachments: () => ({ path: { runId: waitingRunId }, json: { files } }),
      downloadAttachments: async () => {
        const { attachmentId, link } = await prepared()
        await fetch(link, { method: 'PUT', body: 'x' })
        return { path: { runId: waitingRunId }, json: { attachment_ids: [attachmentId] } }
      },
      uploadAttachment: async () => ({ ...linked((await prepared()).link, 'attachmentId'), body: 'x' }),
      listHandoffAttachments: () => done,
      downloadFile: fileLink,
      listAgents: query({ repo: 'acme/shop', sort_by: 'name' }),
      listModels: query({}),
      listWorkers: query({}),
      listConnectedWorkers: query({}),
      drainWorker: () => ({ path: { workerId: `w-${randomUUID()}` } }),
      endWorkerDrain: () => ({ path: { workerId: `w-${randomUUID()}` } }),
      createJoinToken: () => ({ json: { expires_in_minutes: 5 } }),
      checkJoinToken: async () => ({ key: await joinToken() }),
      joinWorker: async () => ({ key: await joinToken(), json: joining() }),
      leaveAsWorker: async () => ({ key: await workerKey() }),
      openWorkerChannel: () => ({
        query: { worker_id: 'by-http' },
        headers: { [workerProtocolHeader]: String(workerProtocolVersion) },
      }),
      sendWorkerFrames: async () => ({
        path: { channelId: await openChannel() },
        json: { first: 1, frames: [heartbeat] },
      }),
      whoami: query({}),
      listApiKeys: query({}),
      createApiKey: () => ({ json: { name: `k-${randomUUID()}` } }),
      expireApiKey: async () => {
        const { api_key } = await cp.client.apiKeys.create({ name: `k-${randomUUID()}` })
        return { path: { uidOrName: api_key.uid } }
      },
      getWorkspaceBundle: () => ({ path: { runId: doneRunId, number: '0' } }),
      getWorkspaceDiff: () => ({ path: { runId: doneRunId, number: '0' } }),
      getRunTranscript: () => done,
      downloadTranscript: () => transcriptLink(doneRunId),
    },
    special: {
      runAgent: starts,
      createRun: starts,
      startLocalRun: {
        404: () => ({ json: { prompt: 'x', host: 'h', conversation_id: unknown } }),
        // The same request again, after an agent began with its answer.
        410: async () => {
          const json = { prompt: 'x', host: 'laptop' }
          const headers = { 'idempotency-key': randomUUID() }
          const { body } = await cp.request<{ run_id: string; execution_id: string; execution_token: string }>(
            'POST',
            '/api/v1/agent/local-runs',
            { json, headers },
          )
          const { run_id: task_id, ...token } = body
          await new TestAgent(cp.url, { task_id, ...token } as TaskAssignment).hello()
          return { json, headers }
        },
        422: () => ({ json: { ...unsupported().json, host: 'laptop' } }),
      },
      listRuns: lists,
      listTasks: lists,
      expireApiKey: { 400: () => ({ path: { uidOrName: '\0' } }) },
      cancelRun: { 400: () => done },
      cancelTask: { 400: () => done },
      getWorkspace: { 400: () => ({ ...done, query: { attempt: '0' } }) },
      getWorkspaceBundle: { 400: () => ({ path: { runId: doneRunId, number: '0' }, query: { attempt: '0' } }) },
      getWorkspaceDiff: { 400: () => ({ path: { runId: doneRunId, number: '0' }, query: { attempt: '0' } }) },
      listEvents: { 400: () => ({ ...done, query: { since: 'x' } }) },
      streamEvents: { 400: () => ({ ...done, query: { since: 'x' } }) },
      streamAgentEvents: { 400: query({}), 404: query({ ancestor_run_id: unknown }) },
      pollAgentEvents: { 400: query({}) },
      listEnvironments: { 400: query({ sort_by: 'size' }) },
      listAgents: { 400: query({ sort_by: 'size' }) },
      listAgentMessages: { 400: () => ({ path: { runId: waitingRunId }, query: { limit: '0' } }) },
      sendAgentMessage: {
        404: () => ({ json: { sender_run_id: unknown, to: [waitingRunId], subject: 'Hi', body: '' } }),
        422: () => ({ json: { sender_run_id: waitingRunId, to: [doneRunId], subject: 'Hi', body: '' } }),
      },
      checkJoinToken: {
        410: async () => {
          const key = await joinToken()
          await cp.clientFor(key).workers.join(joining())
          return { key }
        },
      },
      joinWorker: {
        409: async () => ({ key: await joinToken('other'), json: joining() }),
        410: async () => {
          const key = await joinToken()
          await cp.clientFor(key).workers.join(joining())
          return { key, json: joining() }
        },
      },
      openWorkerChannel: { 400: query({ worker_id: 'warp' }) },
      drainWorker: { 400: () => ({ path: { workerId: 'warp' } }) },
      endWorkerDrain: { 400: () => ({ path: { workerId: 'warp' } }) },
      sendWorkerFrames: { 410: () => ({ path: { channelId: unknown }, json: { first: 1, frames: [heartbeat] } }) },
      getArtifact: { 400: () => ({ path: { artifactUid: 'pr-1' } }) },
      uploadArtifact: {
        400: () => ({ query: { filepath: 'a.txt' }, body: 'bytes' }),
        404: () => ({ query: { run_id: unknown, filepath: 'a.txt' }, body: 'bytes' }),
      },
      downloadFile: {
        404: async () => {
          const { attachmentId, link } = await prepared()
          await fetch(link, { method: 'PUT', body: 'x' })
          const { body } = await cp.request<{ attachments: { download_url: string }[] }>(
            'POST',
            `/api/v1/agent/runs/${waitingRunId}/attachments/download`,
            { json: { attachment_ids: [attachmentId] } },
          )
          const request = linked(body.attachments[0]?.download_url ?? '', 'blobId')
          await forget('blobs', request.path?.blobId)
          return request
        },
      },
      downloadTranscript: {
        404: async () => {
          const request = await transcriptLink(await newRun())
          await forget('runs', request.path?.runId)
          return request
        },
      },
    },
  }
}
