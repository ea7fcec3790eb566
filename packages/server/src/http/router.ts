import { createRoute, OpenAPIHono, type RouteConfig } from '@hono/zod-openapi'
import { AppError } from '@openoz/protocol'
import { problem } from '@openoz/protocol/schemas'
import type { Context, MiddlewareHandler } from 'hono'
import type { z } from 'zod'
import { type Actor, authenticate } from '../domain/actors.ts'
import type { Ctx } from '../domain/context.ts'
import { assertJoinToken } from '../domain/join-tokens.ts'
import { type Action, assertMay, assertOfTeam } from '../domain/permissions.ts'
import { bearerToken } from '../sockets/worker-socket.ts'
import { limitBody, maxBodyBytes as usualBodyBytes } from './body-limits.ts'
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
    assertOfTeam(actor, c.req.header('x-warp-team-uid'))
    assertMay(actor, action)
    c.set('actor', actor)
    await next()
  }
}

/** Before what is asked: whether there is such a token at all. What it is still good for is the route's. */
function needJoinToken(ctx: Ctx): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    await assertJoinToken(ctx, bearerToken(c.req.header('authorization')))
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

interface Description<Body extends z.ZodType, Status extends 200 | 201 | 204> {
  operationId: string
  /** `public`: needs no key, and gets no actor. `join-token`: such a token stands where a key would, and is asked for by the route. */
  action: Action | 'public' | 'join-token'
  /** Without a body: 204. */
  success: { status: Status; body?: Body }
  errors: number[]
  /** Default: 8 MiB. */
  maxBodyBytes?: number
}

/** A JSON route: its schemas are its validation and its place in the OpenAPI document. `errors` are the refusals of its own. */
export function describe<Route extends Described, Body extends z.ZodType, Status extends 200 | 201 | 204>(
  ctx: Ctx,
  options: Route & Description<Body, Status>,
) {
  const { action, success, errors: ownErrors, maxBodyBytes = usualBodyBytes, ...route } = options
  // Whatever may have a body may have one that is too large or of a wrong type.
  const errors = [...ownErrors, ...(options.method === 'get' ? [] : [413, 415])]
  const checks = [jsonOnly, limitBody(maxBodyBytes)]
  return createRoute({
    ...route,
    tags: [tagOf(route.path)],
    'x-action': action,
    // Who asks comes before what is asked: a wrong key is 401, whatever the body.
    middleware:
      action === 'public' ? checks : [action === 'join-token' ? needJoinToken(ctx) : allow(ctx, action), ...checks],
    security: action === 'public' ? [] : [{ bearer: [] }],
    // Typed as the success alone: refusals are thrown, and made by `problemResponse`.
    responses: {
      [success.status]: {
        description: 'Done.',
        ...(success.body && { content: { 'application/json': { schema: success.body } } }),
      },
      ...refusalsOf(action, errors),
    } as Record<Status, { description: string; content: { 'application/json': { schema: Body } } }>,
  })
}

/** Nobody is named by a join token, so that nothing can be forbidden to them. */
function refusalsOf(action: Action | 'public' | 'join-token', errors: number[]) {
  if (action === 'public') return refusalsWithoutKey(errors)
  return action === 'join-token' ? refusalsWithoutKey([401, ...errors]) : refusals(errors)
}

/** The chapter of the API's page in which a route stands. */
export function tagOf(path: string): string {
  const [, first = '', second = ''] = path.split('/')
  const about = first === 'agent' ? second : first
  return chapters[about] ?? 'Runs'
}

const chapters: Record<string, string> = {
  '': 'Skills',
  conversations: 'Conversations',
  sessions: 'Conversations',
  events: 'Events over runs',
  messages: 'Messages between runs',
  environments: 'Environments',
  artifacts: 'Files',
  attachments: 'Files',
  downloads: 'Files',
  models: 'Models',
  workers: 'Workers',
  'worker-join': 'Workers',
  'worker-join-tokens': 'Workers',
  selfhosted: 'Workers',
  'connected-self-hosted-workers': 'Workers',
  'api-keys': 'Keys',
  whoami: 'Keys',
}

/** The problem document as the answer of these statuses, and of 401, 403, 500 and 503, which every route with an actor may give. */
export function refusals(statuses: number[]) {
  return refusalsWithoutKey([401, 403, ...statuses])
}

export function refusalsWithoutKey(statuses: number[]) {
  const all = [...new Set([...statuses, 500, 503])].sort((a, b) => a - b)
  return Object.fromEntries(
    all.map((status) => [
      status,
      { description: 'A problem document.', content: { 'application/problem+json': { schema: problem } } },
    ]),
  )
}
