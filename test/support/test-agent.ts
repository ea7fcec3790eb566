import { randomUUID } from 'node:crypto'
import {
  type AgentCommand,
  type AgentEvent,
  agentChannelPaths,
  agentProtocolVersion,
  type EventBatchResponse,
  type HelloResponse,
  type NextTurnResponse,
  readAnswer,
  type TaskAssignment,
  type TurnOutcome,
} from '@openoz/protocol'
import { readServerSentEvents, type ServerSentEvent } from './server-sent-events.ts'

/** An agent as far as its channel shows it: nothing thinks. */
export class TestAgent {
  readonly runId: string
  readonly executionId: string
  readonly token: string
  readonly nonce = randomUUID()
  /** The number of the last event that was sent. */
  n = 0
  turnId = ''
  #url: string

  constructor(url: string, assignment: TaskAssignment) {
    this.#url = url
    this.runId = assignment.task_id
    this.executionId = assignment.execution_id
    this.token = assignment.execution_token ?? assignment.env_vars?.WARP_API_KEY ?? ''
  }

  /** Goes on with another server of the same database. */
  moveTo(url: string): void {
    this.#url = url
  }

  request(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(this.#url + path, {
      ...init,
      headers: { authorization: `Bearer ${this.token}`, ...(init.headers as Record<string, string>) },
    })
  }

  async #post<T>(path: string, body: unknown): Promise<T> {
    const response = await this.request(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    return readAnswer<T>(response)
  }

  async hello(changes: { protocol?: number; process_nonce?: string } = {}): Promise<HelloResponse> {
    const answer = await this.#post<HelloResponse>(agentChannelPaths.hello, {
      protocol: agentProtocolVersion,
      agent_version: '0.1.0',
      process_nonce: this.nonce,
      host: 'test',
      pid: 1,
      ...changes,
    })
    this.turnId = answer.turn.turn_id
    return answer
  }

  /** One batch, numbered by the caller. */
  sendBatch(events: { n: number; type: string; data: unknown; at?: string }[]): Promise<EventBatchResponse> {
    const at = new Date().toISOString()
    return this.#post(agentChannelPaths.events, { events: events.map((event) => ({ at, ...event })) })
  }

  /** The next events of the stream, numbered here. */
  send(...events: AgentEvent[]): Promise<EventBatchResponse> {
    return this.sendBatch(events.map((event) => ({ n: ++this.n, ...event })))
  }

  say(text: string): Promise<EventBatchResponse> {
    return this.send(message(text))
  }

  /** A sign of life: an empty batch. */
  renew(): Promise<EventBatchResponse> {
    return this.sendBatch([])
  }

  /** At rest: what comes next. */
  async nextTurn(isLast = false): Promise<NextTurnResponse> {
    const answer = await this.#post<NextTurnResponse>(agentChannelPaths.nextTurn, { is_last: isLast })
    if (answer.turn) this.turnId = answer.turn.turn_id
    return answer
  }

  end(outcome: TurnOutcome, text = 'done', error_code?: string): Promise<EventBatchResponse> {
    return this.send({
      type: 'turn_outcome',
      data: { turn_id: this.turnId, outcome, message: text, ...(error_code === undefined ? {} : { error_code }) },
    })
  }

  async putBlob(bytes: Uint8Array | string, contentType = 'application/octet-stream'): Promise<string> {
    const body = typeof bytes === 'string' ? bytes : new Blob([bytes as Uint8Array<ArrayBuffer>])
    const init = { method: 'POST', headers: { 'content-type': contentType }, body }
    return (await readAnswer<{ blob_id: string }>(await this.request(agentChannelPaths.blobs, init))).blob_id
  }

  async checkpoint(step: number, state: string): Promise<void> {
    const blob_id = await this.putBlob(state)
    await this.send({ type: 'checkpoint', data: { harness: 'oz', format: 'test', step, blob_id } })
  }

  commandEvents(signal?: AbortSignal): AsyncGenerator<ServerSentEvent> {
    return readServerSentEvents(this.#url + agentChannelPaths.commands, {
      key: this.token,
      ...(signal ? { signal } : {}),
    })
  }

  /** Waits for the next command of the inbox, acknowledges it and closes the stream. */
  async nextCommand(): Promise<AgentCommand> {
    for await (const { data } of this.commandEvents()) {
      const command = JSON.parse(data) as AgentCommand
      await this.ack(command.id)
      return command
    }
    throw new Error('the stream of commands ended')
  }

  ack(...ids: string[]): Promise<unknown> {
    return this.#post(agentChannelPaths.ackCommands, { ids })
  }
}

export function message(text: string): AgentEvent {
  return { type: 'agent_message_chunk', data: { messageId: 'm1', content: { type: 'text', text } } }
}
