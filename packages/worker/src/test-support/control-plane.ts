import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  AppError,
  agentChannelPaths,
  type ErrorCode,
  type ErrorDetails,
  type EventBatch,
  type TaskAssignment,
  type WorkerMessage,
} from '@openoz/protocol'
import { workerMessage, workerSocketPath } from '@openoz/protocol/schemas'
import { type WebSocket, WebSocketServer } from 'ws'
import { until } from './until.ts'

type MessageOf<T extends WorkerMessage['type']> = Extract<WorkerMessage, { type: T }>

/** The worker's side of the control plane, on a real port: the socket, and the agent channel's events. */
export async function startControlPlane({ answersPings = true } = {}) {
  const state = {
    messages: [] as WorkerMessage[],
    sockets: [] as WebSocket[],
    requests: [] as IncomingMessage[],
    events: [] as { token: string; batch: EventBatch }[],
    refusal: undefined as { code: ErrorCode; details: ErrorDetails } | undefined,
    takesEvents: true,
    answersPings,
  }
  const server = createServer((request, response) => void answer(request, response, state))
  const socketServer = new WebSocketServer({ noServer: true, autoPong: false })
  server.on('upgrade', (request, socket, head) => {
    state.requests.push(request)
    if (state.refusal) {
      const problem = problemOf(state.refusal)
      const body = JSON.stringify(problem)
      socket.end(
        `HTTP/1.1 ${problem.status} Refused\r\ncontent-type: application/problem+json\r\n` +
          `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
      )
      return
    }
    socketServer.handleUpgrade(request, socket, head, (webSocket) => {
      state.sockets.push(webSocket)
      webSocket.on('ping', (payload) => state.answersPings && webSocket.pong(payload))
      webSocket.on('message', (data) => state.messages.push(workerMessage.parse(JSON.parse(String(data)))))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo

  function socket(): WebSocket {
    const found = state.sockets.findLast((candidate) => candidate.readyState === candidate.OPEN)
    if (!found) throw new Error('no worker is connected')
    return found
  }

  return {
    url: `http://127.0.0.1:${port}`,
    socketPath: workerSocketPath,
    ...{ state },
    socket,
    send: (message: unknown) => socket().send(typeof message === 'string' ? message : JSON.stringify(message)),
    /** Resolves with the first message of this type that fits, also when it came before. */
    async message<T extends WorkerMessage['type']>(
      type: T,
      fits: (data: MessageOf<T>['data']) => boolean = () => true,
    ): Promise<MessageOf<T>['data']> {
      const found = await until(`a message ${type}`, () =>
        state.messages.find((message) => message.type === type && fits(message.data as MessageOf<T>['data'])),
      )
      return found.data as MessageOf<T>['data']
    },
    messagesOf: <T extends WorkerMessage['type']>(type: T) =>
      state.messages.filter((message): message is MessageOf<T> => message.type === type),
    assign(overrides: Partial<TaskAssignment> & { config?: TaskAssignment['task']['agent_config_snapshot'] } = {}) {
      const assignment = createAssignment(overrides)
      socket().send(JSON.stringify({ type: 'task_assignment', data: assignment }))
      return assignment
    },
    /** The outcome of an execution, whichever it is. */
    outcome(executionId: string): Promise<MessageOf<'task_completed'> | MessageOf<'task_failed'>> {
      return until('an outcome', () =>
        state.messages.find(
          (message): message is MessageOf<'task_completed'> | MessageOf<'task_failed'> =>
            (message.type === 'task_completed' || message.type === 'task_failed') &&
            message.data.execution_id === executionId,
        ),
      )
    },
    async [Symbol.asyncDispose]() {
      for (const open of state.sockets) open.terminate()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
export type ControlPlane = Awaited<ReturnType<typeof startControlPlane>>

export function createAssignment({
  config,
  ...overrides
}: Partial<TaskAssignment> & { config?: TaskAssignment['task']['agent_config_snapshot'] } = {}): TaskAssignment {
  const taskId = overrides.task_id ?? randomUUID()
  const now = new Date().toISOString()
  return {
    task_id: taskId,
    execution_id: randomUUID(),
    task: {
      id: taskId,
      title: 'say hi',
      task_definition: { prompt: 'say hi' },
      created_at: now,
      updated_at: now,
      owner: { Type: 'USER', Id: 1 },
      agent_config_snapshot: config,
    },
    execution_token: `et-${randomUUID()}`,
    ...overrides,
  }
}

interface State {
  events: { token: string; batch: EventBatch }[]
  takesEvents: boolean
}

async function answer(request: IncomingMessage, response: ServerResponse, state: State): Promise<void> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  if (request.url === '/api/v1/whoami') {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ team_names: ['platform'] }))
    return
  }
  if (request.url !== agentChannelPaths.events || !state.takesEvents) {
    response.writeHead(503).end()
    return
  }
  const batch = JSON.parse(Buffer.concat(chunks).toString()) as EventBatch
  const token = String(request.headers.authorization).replace('Bearer ', '')
  state.events.push({ token, batch })
  const acked = Math.max(
    0,
    ...state.events.filter((sent) => sent.token === token).flatMap(({ batch: { events } }) => events.map(({ n }) => n)),
  )
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ acked_n: acked }))
}

function problemOf({ code, details }: { code: ErrorCode; details: ErrorDetails }) {
  const { spec, message } = new AppError(code, details)
  return {
    type: 'about:blank',
    title: spec.title,
    status: spec.status,
    detail: message,
    error: spec.platform,
    code,
    message,
    retryable: spec.retryable,
  }
}
