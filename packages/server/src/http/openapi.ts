import type { OpenAPIHono } from '@hono/zod-openapi'
import { problem } from '@openoz/protocol/schemas'
import type { AppEnv } from './router.ts'

interface RawRoute {
  path: string
  operationId: string
  summary: string
  /** Absent: it redirects. */
  contentType?: string
  parameters: string[]
  /** Parameters that stand for a key. */
  query?: string[]
}

/** Routes that answer raw bytes or streams: no JSON schema can make them, so the document gets them from here. */
const rawRoutes: RawRoute[] = [
  {
    path: '/agent/runs/{runId}/events/stream',
    operationId: 'streamEvents',
    summary: 'The session log as server-sent events, live; ends with `event: end`',
    contentType: 'text/event-stream',
    parameters: ['runId'],
  },
  {
    path: '/agent/runs/{runId}/workspace/{number}/bundle',
    operationId: 'getWorkspaceBundle',
    summary: 'A git bundle with `refs/oz/head` and `refs/oz/worktree`, on top of the repository’s base commit',
    contentType: 'application/octet-stream',
    parameters: ['runId', 'number'],
  },
  {
    path: '/agent/runs/{runId}/workspace/{number}/diff',
    operationId: 'getWorkspaceDiff',
    summary: 'What the run changed in a repository, as a git diff',
    contentType: 'text/plain',
    parameters: ['runId', 'number'],
  },
  {
    path: '/agent/runs/{runId}/transcript',
    operationId: 'getRunTranscript',
    summary: 'Leads to the whole session log as one JSON document, by a link that is good for 15 minutes',
    parameters: ['runId'],
  },
  {
    path: '/agent/transcripts/{runId}',
    operationId: 'downloadTranscript',
    summary: 'Where that link leads; needs no key',
    contentType: 'application/json',
    parameters: ['runId'],
    query: ['expires', 'signature'],
  },
]

/** Writes the document's route: everything that the schemas validate, and the raw routes. */
export function addOpenApiDocument(api: OpenAPIHono<AppEnv>, version: string): void {
  api.openAPIRegistry.registerComponent('securitySchemes', 'bearer', { type: 'http', scheme: 'bearer' })
  for (const route of rawRoutes) {
    const [status, success] = successOf(route)
    api.openAPIRegistry.registerPath({
      method: 'get',
      path: route.path,
      operationId: route.operationId,
      summary: route.summary,
      security: route.query ? [] : [{ bearer: [] }],
      parameters: [...parametersIn('path', route.parameters), ...parametersIn('query', route.query ?? [])],
      responses: {
        [status]: success,
        404: { description: 'A problem document.', content: { 'application/problem+json': { schema: problem } } },
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

function parametersIn(place: 'path' | 'query', names: string[]) {
  return names.map((name) => ({ name, in: place, required: true, schema: { type: 'string' as const } }))
}

function successOf({ contentType }: RawRoute): [number, { description: string; content?: ContentObject }] {
  if (contentType === undefined) return [302, { description: 'The `Location` header has the link.' }]
  return [200, { description: 'Done.', content: { [contentType]: { schema: { type: 'string' } } } }]
}

type ContentObject = Record<string, { schema: { type: 'string' } }>
