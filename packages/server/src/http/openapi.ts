import type { OpenAPIHono } from '@hono/zod-openapi'
import { problem } from '@openoz/protocol/schemas'
import type { AppEnv } from './router.ts'

/** Routes that answer raw bytes or streams: no JSON schema can make them, so the document gets them from here. */
const rawRoutes = [
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
] as const

/** Writes the document's route: everything that the schemas validate, and the raw routes. */
export function addOpenApiDocument(api: OpenAPIHono<AppEnv>, version: string): void {
  api.openAPIRegistry.registerComponent('securitySchemes', 'bearer', { type: 'http', scheme: 'bearer' })
  for (const route of rawRoutes)
    api.openAPIRegistry.registerPath({
      method: 'get',
      path: route.path,
      operationId: route.operationId,
      summary: route.summary,
      security: [{ bearer: [] }],
      parameters: route.parameters.map((name) => ({
        name,
        in: 'path' as const,
        required: true,
        schema: { type: 'string' as const },
      })),
      responses: {
        200: { description: 'Done.', content: { [route.contentType]: { schema: { type: 'string' } } } },
        404: { description: 'A problem document.', content: { 'application/problem+json': { schema: problem } } },
      },
    })
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
