import type { OpenAPIHono } from '@hono/zod-openapi'
import {
  openWorkerChannelQuery,
  streamRunEventsQuery,
  uploadArtifactQuery,
  uploadArtifactResponse,
  uploadAttachmentResponse,
  workerProtocolHeader,
  workspaceQuery,
} from '@openoz/protocol/schemas'
import type { z } from 'zod'
import type { Action } from '../domain/permissions.ts'
import { type AppEnv, refusals, refusalsWithoutKey, tagOf } from './router.ts'

interface RawRoute {
  /** Default: get. */
  method?: 'get' | 'post' | 'put'
  path: string
  operationId: string
  summary: string
  /** Absent: it redirects. */
  contentType?: string
  parameters: string[]
  /** Parameters that stand for a key. */
  query?: string[]
  headers?: string[]
  /** Other parameters. */
  accepts?: z.ZodObject
  /** What it answers, where that is JSON after all; its body is a file. */
  uploads?: { status: 200 | 201; answer: z.ZodType }
  /** `link`: the signature in the link is the permission. */
  action: Action | 'link'
  /** Refusals of its own, beside those that every route may give. */
  errors: number[]
}

/** Routes that answer raw bytes or streams: no JSON schema can make them, so the document gets them from here. */
const rawRoutes: RawRoute[] = [
  {
    path: '/agent/runs/{runId}/events/stream',
    operationId: 'streamEvents',
    action: 'run.read',
    errors: [400, 404],
    summary: 'The session log as server-sent events, live; ends with `event: end`',
    contentType: 'text/event-stream',
    parameters: ['runId'],
  },
  {
    path: '/agent/events/stream',
    operationId: 'streamAgentEvents',
    action: 'event.read',
    errors: [400, 404],
    summary: 'The events over all runs as server-sent events, live; the header Last-Event-ID goes before `since`',
    contentType: 'text/event-stream',
    parameters: [],
    accepts: streamRunEventsQuery,
  },
  {
    path: '/agent/runs/{runId}/workspace/{number}/bundle',
    operationId: 'getWorkspaceBundle',
    action: 'run.read',
    errors: [400, 404],
    summary: 'A git bundle with `refs/oz/head` and `refs/oz/worktree`, on top of the repository’s base commit',
    contentType: 'application/octet-stream',
    parameters: ['runId', 'number'],
    accepts: workspaceQuery,
  },
  {
    path: '/agent/runs/{runId}/workspace/{number}/diff',
    operationId: 'getWorkspaceDiff',
    action: 'run.read',
    errors: [400, 404],
    summary: 'What the run changed in a repository, as a git diff',
    contentType: 'text/plain',
    parameters: ['runId', 'number'],
    accepts: workspaceQuery,
  },
  {
    path: '/agent/runs/{runId}/transcript',
    operationId: 'getRunTranscript',
    action: 'run.read',
    errors: [404],
    summary: 'Leads to the whole session log as one JSON document, by a link that is good for 15 minutes',
    parameters: ['runId'],
  },
  {
    path: '/agent/transcripts/{runId}',
    operationId: 'downloadTranscript',
    action: 'link',
    errors: [403, 404],
    summary: 'Where that link leads; needs no key',
    contentType: 'application/json',
    parameters: ['runId'],
    query: ['expires', 'signature'],
  },
  {
    path: '/selfhosted/worker/channel',
    operationId: 'openWorkerChannel',
    action: 'worker.connect',
    errors: [400],
    summary:
      'What a worker is told, as server-sent events, where a network ends its WebSocket; begins with `event: open`',
    contentType: 'text/event-stream',
    parameters: [],
    headers: [workerProtocolHeader],
    accepts: openWorkerChannelQuery,
  },
  {
    method: 'post',
    path: '/agent/artifacts',
    operationId: 'uploadArtifact',
    action: 'artifact.create',
    errors: [400, 404, 409, 413],
    summary: 'Add a file, which is the body, to what a run or a conversation’s newest run made; up to 100 MB',
    parameters: [],
    accepts: uploadArtifactQuery,
    uploads: { status: 201, answer: uploadArtifactResponse },
  },
  {
    method: 'put',
    path: '/agent/attachments/{attachmentId}',
    operationId: 'uploadAttachment',
    action: 'link',
    errors: [403, 409, 413],
    summary: 'Where the link of a prepared attachment leads: its bytes are the body, up to 10 MB; needs no key',
    parameters: ['attachmentId'],
    query: ['expires', 'signature'],
    uploads: { status: 200, answer: uploadAttachmentResponse },
  },
  {
    path: '/agent/downloads/{blobId}',
    operationId: 'downloadFile',
    action: 'link',
    errors: [403, 404],
    summary: 'Where links to artifacts, attachments and saved work lead; needs no key',
    contentType: 'application/octet-stream',
    parameters: ['blobId'],
    query: ['filename', 'expires', 'signature'],
  },
]

/** Writes the document's route: everything that the schemas validate, and the raw routes. */
export function addOpenApiDocument(api: OpenAPIHono<AppEnv>, version: string): void {
  api.openAPIRegistry.registerComponent('securitySchemes', 'bearer', { type: 'http', scheme: 'bearer' })
  for (const route of rawRoutes) {
    const [status, success] = successOf(route)
    api.openAPIRegistry.registerPath({
      method: route.method ?? 'get',
      path: route.path,
      operationId: route.operationId,
      summary: route.summary,
      tags: [tagOf(route.path)],
      'x-action': route.action,
      security: route.action === 'link' ? [] : [{ bearer: [] }],
      parameters: [
        ...parametersIn('path', route.parameters),
        ...parametersIn('query', route.query ?? []),
        ...parametersIn('header', route.headers ?? []),
      ],
      request: {
        ...(route.accepts && { query: route.accepts }),
        ...(route.uploads && { body: { required: true, content: { 'application/octet-stream': { schema: file } } } }),
      },
      responses: {
        [status]: success,
        ...(route.action === 'link' ? refusalsWithoutKey(route.errors) : refusals(route.errors)),
      },
    })
  }
  api.doc31('/openapi.json', {
    openapi: '3.1.0',
    info: {
      title: 'openoz',
      version,
      description: 'Runs coding agents on machines that you own.',
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
    },
    servers: [{ url: '/api/v1' }],
  })
}

function parametersIn(place: 'path' | 'query' | 'header', names: string[]) {
  return names.map((name) => ({ name, in: place, required: true, schema: { type: 'string' as const } }))
}

const file = { type: 'string', format: 'binary' } as const

function successOf({ contentType, uploads }: RawRoute) {
  if (uploads) {
    const content = { 'application/json': { schema: uploads.answer } }
    return [uploads.status, { description: 'Done.', content }] as const
  }
  if (contentType === undefined) {
    const headers = { location: { schema: { type: 'string' as const } } }
    return [302, { description: 'The `Location` header has the link.', headers }] as const
  }
  const type = contentType === 'application/json' ? ('object' as const) : ('string' as const)
  return [200, { description: 'Done.', content: { [contentType]: { schema: { type } } } }] as const
}
