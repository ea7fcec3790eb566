import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import {
  type ApiAnswer,
  type ApiDocument,
  type ApiRequest,
  announce,
  createAnswerCheck,
  type Operation,
  operationsOf,
  send,
} from './support/api-contract.ts'
import { contractRequests } from './support/contract-requests.ts'
import { openDatabaseGate } from './support/database-gate.ts'
import { type SdkScene, startSdkScene } from './support/sdk-scene.ts'

/** Every path × status of the OpenAPI document: the request that is answered so is made, and the answer is as the document says. */

async function openContract(scene: SdkScene) {
  const { body: document } = await scene.cp.request<ApiDocument>('GET', '/api/v1/openapi.json', { key: null })
  const { good, special } = await contractRequests(scene)
  const requestFor = (operation: Operation): ApiRequest | Promise<ApiRequest> => {
    const make = good[operation.operationId]
    if (!make) throw new Error(`${operation.operationId} has no request in test/support/contract-requests.ts`)
    return make()
  }
  return { operations: operationsOf(document), check: createAnswerCheck(document), requestFor, special }
}

type Target = { serverUrl: string; key: string }

/** What gives a status for every operation of a kind. Each makes the one change to a good request that the status is for. */
const general: Record<
  number,
  (target: Target, operation: Operation, request: ApiRequest, scene: SdkScene) => Promise<ApiAnswer>
> = {
  401: (target, operation, request) => send(target, operation, { ...request, key: null }),
  403: (target, operation, request) => {
    // Of a link one character.
    if (operation.action === 'link') {
      const { signature = '' } = request.query ?? {}
      return send(target, operation, {
        ...request,
        query: { ...request.query, signature: `x${signature}`.slice(0, -1) },
      })
    }
    return send(target, operation, { ...request, headers: { ...request.headers, 'x-warp-team-uid': randomUUID() } })
  },
  404: (target, operation, request) => {
    const path = Object.fromEntries(Object.keys(request.path ?? {}).map((name) => [name, randomUUID()]))
    return send(target, operation, { ...request, path })
  },
  400: (target, operation, { json: _, ...request }) =>
    send(target, operation, { ...request, body: '{', headers: { 'content-type': 'application/json' } }),
  409: async (target, operation, { json, ...request }) => {
    const headers = {
      ...(json === undefined ? {} : { 'content-type': 'application/json' }),
      'idempotency-key': randomUUID(),
    }
    const body = json === undefined ? request.body : JSON.stringify(json)
    await send(target, operation, { ...request, headers, body: body ?? '' })
    return send(target, operation, { ...request, headers, body: `${body} ` })
  },
  413: (target, operation, request) => announce(target, operation, { ...request, bytes: 1_000_000_000 }),
  415: (target, operation, { json: _, ...request }) =>
    send(target, operation, { ...request, body: 'x', headers: { 'content-type': 'text/plain' } }),
}

test('every status that the document declares is given, with the answer that it describes', {
  timeout: 180_000,
}, async () => {
  await using scene = await startSdkScene()
  const { operations, check, requestFor, special } = await openContract(scene)
  const target = { serverUrl: scene.cp.url, key: scene.cp.adminKey }
  const wrong: string[] = []
  for (const operation of operations) {
    for (const status of operation.statuses.filter((one) => one < 500)) {
      const name = `${operation.operationId} ${status}`
      const own = special[operation.operationId]?.[status]
      const way = general[status]
      const answer = own
        ? await send(target, operation, await own())
        : status < 400
          ? await send(target, operation, await requestFor(operation))
          : await way?.(target, operation, await requestFor(operation), scene)
      if (answer?.status !== status) wrong.push(`${name}: ${answer?.status} ${answer?.body.toString().slice(0, 300)}`)
      else
        wrong.push(
          ...[check(operation, answer)].flatMap((problem) => (problem === undefined ? [] : [`${name}: ${problem}`])),
        )
    }
  }
  expect(wrong).toEqual([])
})

test('a worker’s key is told that it may do nothing of this', async () => {
  await using scene = await startSdkScene()
  const { operations, check, requestFor } = await openContract(scene)
  const { raw_api_key: key } = await scene.cp.client.apiKeys.create({ name: 'w', scope: 'worker', worker_id: 'w' })
  const allowed = ['public', 'link', 'join-token', 'self.read', 'worker.connect', 'worker.leave']
  for (const operation of operations.filter(({ action }) => !allowed.includes(action))) {
    const answer = await send({ serverUrl: scene.cp.url, key }, operation, await requestFor(operation))
    expect([operation.operationId, answer.status, check(operation, answer)]).toEqual([
      operation.operationId,
      403,
      undefined,
    ])
  }
})

test('without a database every operation says that it comes back; with a broken one, that something is wrong', {
  timeout: 180_000,
}, async () => {
  await using scene = await startSdkScene()
  const { cp } = scene
  const { operations, check, requestFor } = await openContract(scene)
  await using gate = await openDatabaseGate(cp.database.url)
  const cutOff = await cp.addServer({ databaseUrl: gate.url })
  // Made while everything works: links have to be signed, and messages sent.
  const requests = new Map<Operation, ApiRequest>()
  for (const operation of operations) requests.set(operation, await requestFor(operation))
  gate.shut()
  for (const [operation, request] of requests) {
    const answer = await send({ serverUrl: cutOff.url, key: cp.adminKey }, operation, request)
    expect([operation.operationId, answer.status, check(operation, answer)]).toEqual([
      operation.operationId,
      503,
      undefined,
    ])
  }
  await cutOff.stop()
  await cp.db.query('alter schema public rename to not_here')
  for (const [operation, request] of requests) {
    const answer = await send({ serverUrl: cp.url, key: cp.adminKey }, operation, request)
    expect([operation.operationId, answer.status, check(operation, answer)]).toEqual([
      operation.operationId,
      500,
      undefined,
    ])
  }
  await cp.db.query('alter schema not_here rename to public')
  cp.errors.splice(0)
})
