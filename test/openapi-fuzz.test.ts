import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type ApiDocument, createAnswerCheck, operationsOf, send } from './support/api-contract.ts'
import { generatedRequests } from './support/generated-requests.ts'
import { startSdkScene } from './support/sdk-scene.ts'

/** Enough for some thousand requests on a small machine. */
const limitMs = 25_000
/** One for everybody, so that a change is judged by itself; with `FUZZ_SEED=$RANDOM` one goes looking for more. */
const seed = Number(process.env.FUZZ_SEED ?? 1)

test('whatever is sent, the answer is one that the document describes, and none is an error of ours', {
  timeout: 120_000,
}, async () => {
  await using scene = await startSdkScene()
  const { cp } = scene
  const { body: document } = await cp.request<ApiDocument>('GET', '/api/v1/openapi.json', { key: null })
  const check = createAnswerCheck(document)
  const operations = operationsOf(document)
  const { doneRunId, waitingRunId, doneConversationId, doneSessionId, environmentId, planUid } = scene
  const ids = [doneRunId, waitingRunId, doneConversationId, doneSessionId, environmentId, planUid, '0']
  const requests = fc.oneof(
    ...operations.map((operation) =>
      generatedRequests(document, operation, ids).map((request) => ({ operation, request })),
    ),
  )
  const target = { serverUrl: cp.url, key: cp.adminKey }
  const asked = new Set<string>()
  await fc.assert(
    fc.asyncProperty(requests, async ({ operation, request }) => {
      const answer = await send(target, operation, request)
      asked.add(operation.operationId)
      if (answer.status >= 500) throw new Error(`${answer.status} ${answer.body.toString()}`)
      const problem = check(operation, answer)
      if (problem !== undefined) throw new Error(problem)
    }),
    { seed, numRuns: 5_000, interruptAfterTimeLimit: limitMs, markInterruptAsFailure: false },
  )
  expect(asked.size).toBe(operations.length)
})
