import { createRoute, OpenAPIHono, type RouteConfig } from '@hono/zod-openapi'
import { AppError } from '@openoz/protocol'
import { problem } from '@openoz/protocol/schemas'
import type { Context, MiddlewareHandler } from 'hono'
import type { z } from 'zod'
import { type Actor, authenticate } from '../domain/actors.ts'
import type { Ctx } from '../domain/context.ts'
import { type Action, assertMay } from '../domain/permissions.ts'
import { bearerToken } from '../sockets/worker-socket.ts'
import { invalidRequest, problemAnswer, toProblem } from './problems.ts'

/** What a request carries once its route is known. */
export type AppEnv = { Variables: { actor: Actor } }

/** A router whose input errors are ours. */
export function createRouter(ctx: Ctx): OpenAPIHono<AppEnv> {
  const router = new OpenAPIHono<AppEnv>({
    defaultHook: (result) => {
      if (!result.success) throw invalidRequest(result.error as z.ZodError)
    },
  })
  router.onError((error, c) => problemResponse(ctx, c, error))
  return router
}

export function problemResponse(ctx: Ctx, c: Context, error: unknown): Response {
  return problemAnswer(toProblem(ctx.log, error, ctx.publicUrl, c.req.path))
}

/** Every route names its action of the permission table: the actor is found and asked for here, and nowhere else. */
export function allow(ctx: Ctx, action: Action): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const actor = await authenticate(ctx, bearerToken(c.req.header('authorization')))
    assertMay(actor, action)
    c.set('actor', actor)
    await next()
  }
}

/** The same types that the body's validator takes. */
const jsonContentType = /^application\/([a-z.-]+\+)?json(;|$)/i

/** A form or a text is refused in words about its type; a body without a type can only be meant as JSON. */
const jsonOnly: MiddlewareHandler<AppEnv> = async (c, next) => {
  const contentType = c.req.header('content-type')
  if (c.req.method === 'GET') return next()
  if (contentType === undefined) c.req.raw.headers.set('content-type', 'application/json')
  else if (!jsonContentType.test(contentType))
    throw new AppError('content_type_unsupported', { contentType: contentType.slice(0, 100) })
  await next()
}

type Described = Omit<RouteConfig, 'responses' | 'middleware' | 'security' | 'operationId'>

/** A JSON route: its schemas are its validation and its place in the OpenAPI document. `errors` are the refusals of its own. */
export function describe<Route extends Described, Body extends z.ZodType, Status extends 200 | 201>(
  ctx: Ctx,
  options: Route & { operationId: string; action: Action; success: { status: Status; body: Body }; errors: number[] },
) {
  const { action, success, errors, ...route } = options
  return createRoute({
    ...route,
    'x-action': action,
    // Who asks comes before what is asked: a wrong key is 401, whatever the body.
    middleware: [allow(ctx, action), jsonOnly],
    security: [{ bearer: [] }],
    // Typed as the success alone: refusals are thrown, and made by `problemResponse`.
    responses: {
      [success.status]: { description: 'Done.', content: { 'application/json': { schema: success.body } } },
      ...refusals(errors),
    } as Record<Status, { description: string; content: { 'application/json': { schema: Body } } }>,
  })
}

/** The problem document as the answer of these statuses, and of 401, 403, 500 and 503, which every route may give. */
export function refusals(statuses: number[]) {
  const all = [...new Set([401, 403, ...statuses, 500, 503])].sort((a, b) => a - b)
  return Object.fromEntries(
    all.map((status) => [
      status,
      { description: 'A problem document.', content: { 'application/problem+json': { schema: problem } } },
    ]),
  )
}
