import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type {
  AgentCommand,
  HelloResponse,
  NextTurnRequest,
  NumberedEvent,
  TurnInput,
  TurnMessage,
} from '@openoz/protocol'
import { agentChannelPaths, errorSpecs } from '@openoz/protocol'

/**
 * The control plane's side of the agent channel in one small server, for tests of the agent alone. It keeps what it is told, in memory, with the
 * real server's rules for numbering; model requests go to the listener that it is given.
 */
export interface AgentChannelServer extends AsyncDisposable {
  url: string
  token: string
  hello: HelloResponse
  /** Everything acknowledged, in order. */
  events: NumberedEvent[]
  blobs: Map<string, Buffer>
  blobTypes: Map<string, string | undefined>
  acknowledgedCommands: string[]
  /** Every question for a next turn, with its answer. A goodbye that is answered with none ends the execution: what is asked after it is refused. */
  questions: { isLast: boolean; turnId: string | undefined; at: number }[]
  /** Requests that came after the end. */
  lateRequests: string[]
  send(command: AgentCommand): void
  /** A follow-up: a turn that waits. Wakes the agent unless told otherwise. */
  queueTurn(message: string, options?: { isQuiet?: boolean; messages?: TurnMessage[] }): TurnInput
  /** Somebody speaks into a turn. */
  say(turnId: string, mode: TurnMessage['mode'], text: string): TurnMessage
  /** Answers every request of the channel with this error of the registry; undefined ends that. */
  refuseWith(code: 'execution_superseded' | 'execution_token_ended' | undefined): void
  /** The next hello waits for its answer. */
  holdHello(): { asked: Promise<void>; answer(): void }
  /** From now on a question for a next turn has its effect, and no answer. */
  loseAnswersAboutTurns(): void
  /** Events are still taken, as of an execution that is over. */
  supersede(): void
  /** What becomes of the next requests for blobs, one word each: refused for good, or left without an answer; undefined lets one through. */
  blobTrouble: ('refuse' | 'hold' | undefined)[]
  /** Breaks every connection, as when the control plane is away. */
  setAway(isAway: boolean): void
  eventsOf(type: string): NumberedEvent[]
  /** Resolves with the first event that fits, also one that is there already. */
  waitFor(fits: (event: NumberedEvent) => boolean, timeoutMs?: number): Promise<NumberedEvent>
  close(): Promise<void>
}

export interface AgentChannelServerOptions {
  hello?: Partial<HelloResponse>
  limits?: Partial<HelloResponse['limits']>
  /** For paths below `/llm`. */
  model?: RequestListener
  /** Beside what hellos and batches are answered with: what a newer control plane says. */
  more?: Record<string, unknown>
  /** Answers questions for a next turn instead of the turns that were queued. */
  nextTurn?: (isLast: boolean) => TurnInput | null
}

export const testLimits: HelloResponse['limits'] = {
  renew_every_ms: 200,
  stop_after_ms: 60_000,
  lost_after_ms: 65_000,
  settled_stop_after_ms: 45_000,
  max_steps: 50,
  max_output_tokens: 4096,
  max_turn_output_tokens: 200_000,
  max_turn_ms: 600_000,
  llm_idle_timeout_ms: 10_000,
  llm_retry_for_ms: 10_000,
  setup_command_timeout_ms: 30_000,
  command_timeout_ms: 30_000,
  workspace_max_bytes: 50_000_000,
  spool_max_bytes: 16_000_000,
  output_max_bytes: 268_435_456,
  web_fetch: true,
}

export async function startAgentChannelServer(options: AgentChannelServerOptions = {}): Promise<AgentChannelServer> {
  const token = `oet-${crypto.randomUUID()}`
  const state = {
    events: [] as NumberedEvent[],
    blobs: new Map<string, Buffer>(),
    blobTypes: new Map<string, string | undefined>(),
    pending: [] as AgentCommand[],
    acknowledged: [] as string[],
    streams: new Set<ServerResponse>(),
    turns: [] as TurnInput[],
    questions: [] as AgentChannelServer['questions'],
    hasEnded: false,
    lateRequests: [] as string[],
    refusal: undefined as 'execution_superseded' | 'execution_token_ended' | undefined,
    isAway: false,
    isSuperseded: false,
    beforeHello: async () => {},
    losesTurns: false,
    blobTrouble: [] as AgentChannelServer['blobTrouble'],
  }
  const hello: HelloResponse = {
    protocol: 1,
    run_id: crypto.randomUUID(),
    execution_id: crypto.randomUUID(),
    conversation_id: crypto.randomUUID(),
    attempt: 1,
    turn: { turn_id: crypto.randomUUID(), number: 1, message: 'say hi', messages: [] },
    continues: null,
    mode: 'normal',
    execution_location: 'REMOTE',
    attachments: [],
    title: 'say hi',
    config: {},
    model: { id: 'openai/scripted', wire: 'openai-chat', base_path: '/llm/openai/v1' },
    checkpoint: null,
    workspace: null,
    idle_timeout_ms: 0,
    acked_n: 0,
    run_url: 'http://localhost/runs/1',
    ...options.hello,
    limits: { ...testLimits, ...options.limits },
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url ?? '/', 'http://localhost').pathname
    if (state.isAway) return void request.socket.destroy()
    if (state.refusal) return sendProblem(response, state.refusal)
    if (request.headers.authorization !== `Bearer ${token}`) {
      const isModelKey = request.headers['x-api-key'] === token
      if (!isModelKey) return sendProblem(response, 'api_key_unknown')
    }
    if (path.startsWith('/llm/')) return options.model?.(request, response)
    if (state.hasEnded) {
      state.lateRequests.push(path)
      return sendProblem(response, 'execution_token_ended')
    }
    if (path === agentChannelPaths.hello) {
      await state.beforeHello()
      return sendJson(response, { ...hello, acked_n: state.events.length, ...options.more })
    }
    if (path === agentChannelPaths.commands) return openStream(response)
    if (path.startsWith(agentChannelPaths.blobs)) {
      const trouble = state.blobTrouble.shift()
      if (trouble === 'refuse') return sendProblem(response, 'blob_not_found')
      if (trouble === 'hold') return
    }
    if (path.startsWith(`${agentChannelPaths.blobs}/`)) {
      const blob = state.blobs.get(path.slice(agentChannelPaths.blobs.length + 1))
      return blob ? void response.end(blob) : sendProblem(response, 'blob_not_found')
    }
    const body = await readBytes(request)
    if (path === agentChannelPaths.events) {
      for (const event of JSON.parse(body.toString('utf8')).events as NumberedEvent[]) {
        if (event.n === state.events.length + 1) state.events.push(event)
      }
      const over = state.isSuperseded ? { superseded: true } : {}
      return sendJson(response, { acked_n: state.events.length, ...over, ...options.more })
    }
    if (path === agentChannelPaths.nextTurn) {
      const { is_last: isLast } = JSON.parse(body.toString('utf8')) as NextTurnRequest
      const turn = nextTurn(isLast)
      if (state.losesTurns) return void request.socket.destroy()
      return sendJson(response, { turn, attachments: hello.attachments })
    }
    if (path === agentChannelPaths.blobs) {
      const id = crypto.randomUUID()
      state.blobs.set(id, body)
      state.blobTypes.set(id, request.headers['content-type'])
      return sendJson(response, { blob_id: id, size_bytes: body.length })
    }
    if (path === agentChannelPaths.ackCommands) {
      const { ids } = JSON.parse(body.toString('utf8')) as { ids: string[] }
      state.acknowledged.push(...ids)
      state.pending = state.pending.filter(({ id }) => !ids.includes(id))
      return sendJson(response, {})
    }
    return sendProblem(response, 'route_not_found')
  }

  /** A turn without an outcome is the answer again, as when the first answer was lost. */
  function nextTurn(isLast: boolean): TurnInput | null {
    const ended = new Set(state.events.filter(({ type }) => type === 'turn_outcome').map(({ data }) => data.turn_id))
    const waiting = state.turns.find(({ turn_id }) => !ended.has(turn_id)) ?? null
    const turn = options.nextTurn ? options.nextTurn(isLast) : waiting
    state.questions.push({ isLast, turnId: turn?.turn_id, at: performance.now() })
    state.hasEnded = isLast && turn === null
    return turn
  }

  function send(command: AgentCommand): void {
    state.pending.push(command)
    for (const stream of state.streams) writeCommand(stream, command)
  }

  function openStream(response: ServerResponse): void {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(': hello\n\n')
    for (const command of state.pending) writeCommand(response, command)
    state.streams.add(response)
    response.on('close', () => state.streams.delete(response))
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const close = async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  return {
    url: `http://127.0.0.1:${port}`,
    token,
    hello,
    events: state.events,
    blobs: state.blobs,
    blobTypes: state.blobTypes,
    acknowledgedCommands: state.acknowledged,
    blobTrouble: state.blobTrouble,
    questions: state.questions,
    lateRequests: state.lateRequests,
    send,
    queueTurn(message, { isQuiet = false, messages = [] } = {}) {
      const turn = { turn_id: crypto.randomUUID(), number: state.turns.length + 2, message, messages }
      state.turns.push(turn)
      if (!isQuiet) send({ id: crypto.randomUUID(), type: 'turn', payload: {} })
      return turn
    },
    say(turnId, mode, text) {
      const message = { message_id: crypto.randomUUID(), mode, text }
      send({ id: crypto.randomUUID(), type: 'message', payload: { ...message, turn_id: turnId } })
      return message
    },
    refuseWith(code) {
      state.refusal = code
    },
    holdHello() {
      const asked = Promise.withResolvers<void>()
      const held = Promise.withResolvers<void>()
      state.beforeHello = () => {
        asked.resolve()
        return held.promise
      }
      return { asked: asked.promise, answer: held.resolve }
    },
    loseAnswersAboutTurns() {
      state.losesTurns = true
    },
    supersede() {
      state.isSuperseded = true
    },
    setAway(isAway) {
      state.isAway = isAway
      if (isAway) server.closeAllConnections()
    },
    eventsOf: (type) => state.events.filter((event) => event.type === type),
    async waitFor(fits, timeoutMs = 20_000) {
      const deadline = performance.now() + timeoutMs
      for (;;) {
        const found = state.events.find(fits)
        if (found) return found
        if (performance.now() > deadline)
          throw new Error(`no such event among ${JSON.stringify(state.events).slice(-4000)}`)
        await delay(10)
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

function writeCommand(stream: ServerResponse, command: AgentCommand): void {
  stream.write(`id: ${command.id}\nevent: command\ndata: ${JSON.stringify(command)}\n\n`)
}

function sendJson(response: ServerResponse, body: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}

function sendProblem(
  response: ServerResponse,
  code: 'execution_superseded' | 'execution_token_ended' | 'api_key_unknown' | 'blob_not_found' | 'route_not_found',
): void {
  const { status, title, message, platform, retryable } = errorSpecs[code]
  response.writeHead(status, { 'content-type': 'application/problem+json' })
  const detail = message
  response.end(
    JSON.stringify({ type: 'about:blank', title, status, detail, message, error: platform, code, retryable }),
  )
}

async function readBytes(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}
