import { z } from '@hono/zod-openapi'
import { AppError, type FollowUpMode } from '@openoz/protocol'
import {
  createRunRequest,
  createRunResponse,
  followUpRequest,
  followUpResponse,
  forkRunRequest,
  listExecutionsResponse,
  listRunsQuery,
  listRunsResponse,
  runItem,
  whyResponse,
  workspaceQuery,
  workspaceResponse,
} from '@openoz/protocol/schemas'
import { actorLabel } from '../domain/actors.ts'
import type { Ctx } from '../domain/context.ts'
import { listExecutions } from '../domain/executions.ts'
import { followUp } from '../domain/follow-ups.ts'
import { doOnce } from '../domain/idempotency.ts'
import { cancelRun, createRun, getRun, listRuns, planFork, planRun, requireRun, requireText } from '../domain/runs.ts'
import { explainRun } from '../domain/why.ts'
import { findBlob, readBlob } from '../store/blobs.ts'
import { findLastWorkspace, findWorkspaceOfAttempt } from '../store/checkpoints.ts'
import { maxBodyWithAttachmentsBytes } from './body-limits.ts'
import { byteAnswer } from './byte-answer.ts'
import { foldDeepObject } from './deep-object.ts'
import { requestIdentity } from './request-identity.ts'
import { allow, createRouter, describe } from './router.ts'
import { runSourceOf } from './run-source.ts'

const runId = z.object({ runId: z.string() })

const listRunsParameters = z
  .unknown()
  .transform((query) => foldDeepObject(query, 'metadata'))
  .pipe(listRunsQuery)

export function runRoutes(ctx: Ctx) {
  const router = createRouter(ctx)

  // The reference has both spellings; its own client uses the older one.
  for (const [path, operationId] of [
    ['/agent/run', 'runAgent'],
    ['/agent/runs', 'createRun'],
  ] as const) {
    router.openapi(
      describe(ctx, {
        method: 'post',
        path,
        operationId,
        action: 'run.create',
        summary: 'Start a run',
        request: { body: { required: true, content: { 'application/json': { schema: createRunRequest } } } },
        success: { status: 200, body: createRunResponse },
        errors: [400, 404, 409, 422],
        maxBodyBytes: maxBodyWithAttachmentsBytes,
      }),
      async (c) => {
        const actor = c.get('actor')
        const identity = await requestIdentity(c)
        const source = runSourceOf(c)
        const answer = await doOnce(
          ctx,
          { ...identity, owner: actorLabel(actor), route: 'run.create' },
          {
            plan: () => planRun(ctx, c.req.valid('json'), actor),
            act: async (tx, hint, plan) => ({ status: 200, body: await createRun(tx, hint, plan, actor, source) }),
          },
        )
        return c.json(answer.body as z.infer<typeof createRunResponse>, 200)
      },
    )
  }

  for (const [path, operationId] of [
    ['/agent/runs', 'listRuns'],
    ['/agent/tasks', 'listTasks'],
  ] as const) {
    router.openapi(
      describe(ctx, {
        method: 'get',
        path,
        operationId,
        action: 'run.read',
        summary: 'List runs',
        request: { query: listRunsParameters },
        success: { status: 200, body: listRunsResponse },
        errors: [400, 404],
      }),
      async (c) => c.json(await listRuns(ctx, c.req.valid('query'), c.get('actor')), 200),
    )
  }

  for (const [path, operationId] of [
    ['/agent/runs/{runId}', 'getRun'],
    ['/agent/tasks/{runId}', 'getTask'],
  ] as const) {
    router.openapi(
      describe(ctx, {
        method: 'get',
        path,
        operationId,
        action: 'run.read',
        summary: 'Get a run',
        request: { params: runId },
        success: { status: 200, body: runItem },
        errors: [404],
      }),
      async (c) => c.json(await getRun(ctx, c.req.valid('param').runId, c.get('actor')), 200),
    )
  }

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/runs/{runId}/followups',
      operationId: 'submitRunFollowup',
      action: 'run.follow-up',
      summary: 'Say something to a run: a turn of its own, or into the one at work',
      request: {
        params: runId,
        body: { required: true, content: { 'application/json': { schema: followUpRequest } } },
      },
      success: { status: 200, body: followUpResponse },
      errors: [400, 404, 409],
    }),
    async (c) => {
      const actor = c.get('actor')
      const { message, mode } = c.req.valid('json')
      const run = await requireRun(ctx, c.req.valid('param').runId, actor)
      const answer = await doOnce(
        ctx,
        { ...(await requestIdentity(c)), owner: actorLabel(actor), route: `run.follow-up ${run.id}` },
        {
          plan: async () => requireText(message, 'message'),
          act: async (tx, hint) => ({
            status: 200,
            body: await followUp(tx, hint, { runId: run.id, message, mode: followUpMode(mode) }, actor),
          }),
        },
      )
      return c.json(answer.body as z.infer<typeof followUpResponse>, 200)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'post',
      path: '/agent/runs/{runId}/fork',
      operationId: 'forkRun',
      action: 'run.create',
      summary: 'Start a run with its own copy of this one’s conversation and workspace',
      request: {
        params: runId,
        body: { required: true, content: { 'application/json': { schema: forkRunRequest } } },
      },
      success: { status: 200, body: createRunResponse },
      errors: [400, 404, 409],
    }),
    async (c) => {
      const actor = c.get('actor')
      const { runId } = c.req.valid('param')
      const source = runSourceOf(c)
      const answer = await doOnce(
        ctx,
        { ...(await requestIdentity(c)), owner: actorLabel(actor), route: `run.fork ${runId.toLowerCase()}` },
        {
          plan: () => planFork(ctx, runId, c.req.valid('json'), actor),
          act: async (tx, hint, plan) => ({ status: 200, body: await createRun(tx, hint, plan, actor, source) }),
        },
      )
      return c.json(answer.body as z.infer<typeof createRunResponse>, 200)
    },
  )

  for (const [path, operationId] of [
    ['/agent/runs/{runId}/cancel', 'cancelRun'],
    ['/agent/tasks/{runId}/cancel', 'cancelTask'],
  ] as const) {
    router.openapi(
      describe(ctx, {
        method: 'post',
        path,
        operationId,
        action: 'run.cancel',
        summary: 'Cancel a run, in any state that has not ended',
        request: { params: runId },
        success: { status: 200, body: z.string().describe('The run’s id.') },
        errors: [400, 404],
      }),
      async (c) => {
        const { runId } = c.req.valid('param')
        await cancelRun(ctx, runId, c.get('actor'))
        return c.json(runId, 200)
      },
    )
  }

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/runs/{runId}/executions',
      operationId: 'listExecutions',
      action: 'run.read',
      summary: 'Every attempt at a run, with its waterfall',
      request: { params: runId },
      success: { status: 200, body: listExecutionsResponse },
      errors: [404],
    }),
    async (c) => {
      const run = await requireRun(ctx, c.req.valid('param').runId, c.get('actor'))
      return c.json({ executions: await listExecutions(ctx, run) }, 200)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/runs/{runId}/why',
      operationId: 'explainRun',
      action: 'run.read',
      summary: 'Why a run waits, or why it ended',
      request: { params: runId },
      success: { status: 200, body: whyResponse },
      errors: [404],
    }),
    async (c) => {
      const run = await requireRun(ctx, c.req.valid('param').runId, c.get('actor'))
      return c.json(await explainRun(ctx, run), 200)
    },
  )

  router.openapi(
    describe(ctx, {
      method: 'get',
      path: '/agent/runs/{runId}/workspace',
      operationId: 'getWorkspace',
      action: 'run.read',
      summary: 'What a run changed, as last saved',
      request: { params: runId, query: workspaceQuery },
      success: { status: 200, body: workspaceResponse },
      errors: [400, 404],
    }),
    async (c) => {
      const run = await requireRun(ctx, c.req.valid('param').runId, c.get('actor'))
      const { attempt } = c.req.valid('query')
      const saved = await findWorkspace(run.id, attempt)
      if (!saved) throw notSaved(run.id, attempt)
      return c.json(
        {
          run_id: run.id,
          saved_at: saved.createdAt.toISOString(),
          repositories: saved.repositories.map(({ bundle_blob_id, diff_blob_id, url, ...repository }) => ({
            ...repository,
            url: url ?? null,
            has_bundle: bundle_blob_id !== null,
            has_diff: diff_blob_id !== null,
          })),
          left_out: saved.leftOut,
        },
        200,
      )
    },
  )

  const findWorkspace = (runId: string, attempt: number | undefined) =>
    attempt === undefined ? findLastWorkspace(ctx.db, runId) : findWorkspaceOfAttempt(ctx.db, runId, attempt)

  const notSaved = (id: string, attempt: number | undefined) =>
    attempt === undefined
      ? new AppError('workspace_not_saved', { runId: id })
      : new AppError('attempt_workspace_not_saved', { runId: id, attempt })

  // Raw bytes: no schema to check, so plain routes; the document has them from `http/openapi.ts`.
  router.get('/agent/runs/:runId/workspace/:number/:part{bundle|diff}', allow(ctx, 'run.read'), async (c) => {
    const run = await requireRun(ctx, c.req.param('runId'), c.get('actor'))
    const { attempt } = workspaceQuery.parse(c.req.query())
    const saved = await findWorkspace(run.id, attempt)
    const repository = saved?.repositories[Number(c.req.param('number'))]
    const isDiff = c.req.param('part') === 'diff'
    const blobId = isDiff ? repository?.diff_blob_id : repository?.bundle_blob_id
    if (!blobId) throw notSaved(run.id, attempt)
    // A newer save may remove this one while it is read.
    const blob = await findBlob(ctx.db, blobId)
    if (!blob) throw notSaved(run.id, attempt)
    return byteAnswer(ctx, c, readBlob(ctx.db, blobId), {
      sizeBytes: blob.sizeBytes,
      headers: { 'content-type': isDiff ? 'text/plain; charset=utf-8' : 'application/octet-stream' },
    })
  })

  return router
}

/** The SDKs' own modes mean what a queued message does here. */
function followUpMode(mode: z.output<typeof followUpRequest>['mode']): FollowUpMode {
  return mode === 'steer' || mode === 'interrupt' ? mode : 'queue'
}
