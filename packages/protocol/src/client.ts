import type { CloudEnvironmentConfig } from './agent-config.ts'
import type { ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, Whoami } from './api-keys.ts'
import type { ArtifactResponse, UploadArtifactQuery, UploadArtifactResponse } from './artifacts.ts'
import type { Conversation, ConversationTitle, ForkedConversation } from './conversations.ts'
import type { CloudEnvironment, CreateEnvironmentRequest, ListEnvironmentsQuery } from './environments.ts'
import { AppError, type ErrorCode, errorSpecs } from './errors.ts'
import type { ListEventsResponse } from './events.ts'
import type {
  CheckJoinTokenResponse,
  CreateJoinTokenRequest,
  CreateJoinTokenResponse,
  JoinWorkerRequest,
  JoinWorkerResponse,
} from './join-tokens.ts'
import type { ListModelsResponse } from './models.ts'
import type { Problem } from './problem.ts'
import type { FullMessage, MessageHeader, SendMessageRequest, SendMessageResponse } from './run-messages.ts'
import type {
  CreateRunRequest,
  CreateRunResponse,
  Execution,
  FollowUpRequest,
  FollowUpResponse,
  ForkRunRequest,
  ListRunsResponse,
  Run,
  SavedWorkspace,
  StartLocalRunRequest,
  StartLocalRunResponse,
  Why,
} from './runs.ts'
import type { DrainWorkerResponse, ListWorkersResponse } from './workers.ts'

/** The part of `fetch` that the client needs: `path` begins with `/`. Rejects with an AppError when there is no answer. */
export type ApiFetch = (path: string, init: RequestInit) => Promise<Response>

/** A server's refusal, with everything that its problem document said. */
export class ApiError extends Error {
  readonly problem: Problem
  constructor(body: Problem) {
    super(body.detail)
    this.name = 'ApiError'
    this.problem = body
  }
}

/** By which the reference's client says which run it acts inside of. */
export const runScopeHeader = 'x-warp-cloud-agent-id'

/** `idempotencyKey` makes a repeated call answer what the first one made. */
interface Once {
  idempotencyKey?: string
}

export type ListRunsParams = Record<string, string | number | string[] | undefined>
export type ApiClient = ReturnType<typeof createApiClient>

/** The typed client of the REST API. Every method rejects with ApiError (refused) or AppError (no readable answer). */
export function createApiClient(options: { fetch: ApiFetch; apiKey: string }) {
  async function call<T>(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<T> {
    const response = await options.fetch(`/api/v1/${path}`, {
      method,
      headers: {
        authorization: `Bearer ${options.apiKey}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return readAnswer<T>(response)
  }

  return {
    whoami: () => call<Whoami>('GET', 'whoami'),
    runs: {
      create: (request: CreateRunRequest, once?: Once) =>
        call<CreateRunResponse>('POST', 'agent/runs', request, onceOnly(once)),
      /** A run that this machine performs itself. */
      startLocal: (request: StartLocalRunRequest, once?: Once) =>
        call<StartLocalRunResponse>('POST', 'agent/local-runs', request, onceOnly(once)),
      get: (runId: string) => call<Run>('GET', `agent/runs/${encodeURIComponent(runId)}`),
      list: (params: ListRunsParams = {}) => call<ListRunsResponse>('GET', `agent/runs${queryString(params)}`),
      /** Says something to the run's agent, or begins its next turn. */
      followUp: (runId: string, request: FollowUpRequest, once?: Once) =>
        call<FollowUpResponse>('POST', `agent/runs/${encodeURIComponent(runId)}/followups`, request, onceOnly(once)),
      /** A new run with its own copy of the conversation and the workspace. */
      fork: (runId: string, request: ForkRunRequest, once?: Once) =>
        call<CreateRunResponse>('POST', `agent/runs/${encodeURIComponent(runId)}/fork`, request, onceOnly(once)),
      conversation: (runId: string) =>
        call<Conversation>('GET', `agent/runs/${encodeURIComponent(runId)}/conversation`),
      cancel: (runId: string) => call<string>('POST', `agent/runs/${encodeURIComponent(runId)}/cancel`),
      events: (runId: string, params: { since?: number; limit?: number } = {}) =>
        call<ListEventsResponse>('GET', `agent/runs/${encodeURIComponent(runId)}/events${queryString(params)}`),
      executions: (runId: string) =>
        call<{ executions: Execution[] }>('GET', `agent/runs/${encodeURIComponent(runId)}/executions`),
      /** `attempt`: what that one had changed, from 1, though another one was at work by then. */
      workspace: (runId: string, params: { attempt?: number } = {}) =>
        call<SavedWorkspace>('GET', `agent/runs/${encodeURIComponent(runId)}/workspace${queryString(params)}`),
      why: (runId: string) => call<Why>('GET', `agent/runs/${encodeURIComponent(runId)}/why`),
    },
    conversations: {
      /** Over all its runs that one may see. */
      get: (conversationId: string) =>
        call<Conversation>('GET', `agent/conversations/${encodeURIComponent(conversationId)}`),
      /** A copy as it is now, for runs of its own. */
      fork: (conversationId: string, request: { title?: string } = {}, once?: Once) =>
        call<ForkedConversation>(
          'POST',
          `agent/conversations/${encodeURIComponent(conversationId)}/fork`,
          request,
          onceOnly(once),
        ),
      rename: (conversationId: string, title: string) =>
        call<ConversationTitle>('POST', `agent/conversations/${encodeURIComponent(conversationId)}/rename`, { title }),
    },
    environments: {
      list: (query: Partial<ListEnvironmentsQuery> = {}) =>
        call<{ environments: CloudEnvironment[] }>('GET', `agent/environments${queryString(query)}`),
      get: (uid: string) => call<CloudEnvironment>('GET', `agent/environments/${encodeURIComponent(uid)}`),
      create: (request: CreateEnvironmentRequest, once?: Once) =>
        call<CloudEnvironment>('POST', 'agent/environments', request, onceOnly(once)),
      /** Replaces the whole config. */
      update: (uid: string, config: CloudEnvironmentConfig) =>
        call<CloudEnvironment>('PUT', `agent/environments/${encodeURIComponent(uid)}`, config),
      delete: (uid: string) =>
        call<{ uid: string; deleted: true }>('DELETE', `agent/environments/${encodeURIComponent(uid)}`),
    },
    artifacts: {
      get: (uid: string) => call<ArtifactResponse>('GET', `agent/artifacts/${encodeURIComponent(uid)}`),
      /** `bytes` are sent as they are. */
      upload: async (query: UploadArtifactQuery, bytes: Blob, once?: Once) =>
        readAnswer<UploadArtifactResponse>(
          await options.fetch(`/api/v1/agent/artifacts${queryString(query)}`, {
            method: 'POST',
            headers: {
              authorization: `Bearer ${options.apiKey}`,
              'content-type': bytes.type === '' ? 'application/octet-stream' : bytes.type,
              ...onceOnly(once),
            },
            body: bytes,
          }),
        ),
    },
    messages: {
      send: (request: SendMessageRequest, once?: Once) =>
        call<SendMessageResponse>('POST', 'agent/messages', request, onceOnly(once)),
      list: (runId: string, query: { unread?: string; since?: string; limit?: number } = {}) =>
        call<MessageHeader[]>('GET', `agent/messages/${encodeURIComponent(runId)}${queryString(query)}`),
      /** `forRun`: only where it came for that run. */
      read: (messageId: string, { forRun }: { forRun?: string } = {}) =>
        call<FullMessage>(
          'POST',
          `agent/messages/${encodeURIComponent(messageId)}/read`,
          undefined,
          forRun === undefined ? {} : { [runScopeHeader]: forRun },
        ),
      markDelivered: (messageId: string, { forRun }: { forRun?: string } = {}) =>
        call<undefined>(
          'POST',
          `agent/messages/${encodeURIComponent(messageId)}/delivered`,
          undefined,
          forRun === undefined ? {} : { [runScopeHeader]: forRun },
        ),
    },
    models: { list: () => call<ListModelsResponse>('GET', 'agent/models') },
    workers: {
      list: () => call<ListWorkersResponse>('GET', 'workers'),
      /** From now on this id is offered nothing, whoever connects under it; what runs goes on. */
      drain: (workerId: string) => call<DrainWorkerResponse>('POST', `workers/${encodeURIComponent(workerId)}/drain`),
      endDrain: (workerId: string) =>
        call<DrainWorkerResponse>('DELETE', `workers/${encodeURIComponent(workerId)}/drain`),
      createJoinToken: (request: CreateJoinTokenRequest) =>
        call<CreateJoinTokenResponse>('POST', 'worker-join-tokens', request),
      /** With a join token in place of the key; spends nothing. */
      checkJoinToken: () => call<CheckJoinTokenResponse>('GET', 'worker-join'),
      /** The same, and it is spent. Asked again with the same nonce, it answers again. */
      join: (request: JoinWorkerRequest) => call<JoinWorkerResponse>('POST', 'worker-join', request),
      /** Ends the worker key that asks. */
      leave: () => call<undefined>('DELETE', 'worker-join'),
    },
    apiKeys: {
      list: () => call<{ api_keys: ApiKey[] }>('GET', 'api-keys'),
      create: (request: CreateApiKeyRequest) => call<CreateApiKeyResponse>('POST', 'api-keys', request),
      expire: (uidOrName: string) => call<{ uid: string }>('DELETE', `api-keys/${encodeURIComponent(uidOrName)}`),
    },
  }
}

function onceOnly({ idempotencyKey }: Once = {}): Record<string, string> {
  return idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey }
}

/** Reads a JSON answer, or throws what the problem document says. */
export async function readAnswer<T>(response: Response): Promise<T> {
  const text = await response.text()
  let body: unknown
  try {
    body = text === '' ? undefined : JSON.parse(text)
  } catch {
    body = undefined
  }
  if (response.ok && (body !== undefined || response.status === 204)) return body as T
  if (isProblem(body)) throw new ApiError(body)
  throw new AppError('server_answer_unreadable', { url: response.url, status: response.status })
}

/** Whether the refusal has this code of the registry. */
export function isApiError(error: unknown, code: ErrorCode): error is ApiError {
  return error instanceof ApiError && error.problem.code === code && Object.hasOwn(errorSpecs, code)
}

function isProblem(body: unknown): body is Problem {
  return typeof body === 'object' && body !== null && 'title' in body && 'detail' in body && 'code' in body
}

function queryString(params: ListRunsParams): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(params)) {
    for (const item of Array.isArray(value) ? value : [value]) if (item !== undefined) query.append(name, String(item))
  }
  const text = query.toString()
  return text === '' ? '' : `?${text}`
}
