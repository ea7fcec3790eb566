import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { createMasker } from '@openoz/machine'
import type { AgentEvent, HelloResponse, ModelAccess, TurnInput, TurnMessage } from '@openoz/protocol'
import { pino } from 'pino'
import type { HarnessCheckpoint, HarnessContext, HarnessSession } from '../../packages/agent/src/harnesses/harness.ts'
import { ozHarness } from '../../packages/agent/src/harnesses/oz.ts'
import { testLimits } from './agent-channel-server.ts'
import { createRecordingSink } from './recording-sink.ts'
import { type ScriptedModel, type ScriptedModelOptions, startScriptedModel } from './scripted-model.ts'

/** Every wire, with a model that its library knows. */
export const modelAccesses: ModelAccess[] = [
  { id: 'openai/scripted', wire: 'openai-chat', base_path: '/llm/openai/v1' },
  { id: 'openai/gpt-5', wire: 'openai-responses', base_path: '/llm/openai/v1' },
  { id: 'anthropic/claude-sonnet-4-5', wire: 'anthropic-messages', base_path: '/llm/anthropic/v1' },
  { id: 'google/gemini-2.5-pro', wire: 'google-generate-content', base_path: '/llm/google/v1beta' },
  { id: 'bedrock/anthropic.claude-sonnet-4-5-v1:0', wire: 'bedrock-converse', base_path: '/llm/bedrock' },
]

/** The built-in harness alone, with a scripted model on the loopback: no control plane, no process. */
export interface HarnessFixture extends AsyncDisposable {
  model: ScriptedModel
  folder: string
  events: AgentEvent[]
  /** Everything that was kept on the disk, in order. */
  kept: HarnessCheckpoint[]
  /** Breaks the next answer of the model off after so many bytes, or ends it there. */
  cutNext(cut: { bytes: number; ends: boolean } | undefined): void
  /** The next answer comes a byte at a time, with a pause after each. */
  slowNext(msPerByte: number): void
  open(changes?: Partial<HarnessContext>): Promise<HarnessSession>
  eventsOf<T extends AgentEvent['type']>(type: T): Extract<AgentEvent, { type: T }>['data'][]
}

export interface HarnessFixtureOptions extends ScriptedModelOptions {
  access?: Partial<ModelAccess>
  limits?: Partial<HelloResponse['limits']>
}

export async function startHarnessFixture(options: HarnessFixtureOptions): Promise<HarnessFixture> {
  const folder = mkdtempSync(join(tmpdir(), 'oz-harness-test-'))
  const workspace = join(folder, 'workspace')
  mkdirSync(workspace)
  const model = await startScriptedModel(options)
  const wire = await startCuttingProxy(model.url)
  const sink = createRecordingSink()
  const kept: HarnessCheckpoint[] = []
  const sessions: HarnessSession[] = []
  const open = async (changes: Partial<HarnessContext> = {}) => {
    const session = await ozHarness.open({
      runId: crypto.randomUUID(),
      config: {},
      mode: 'normal',
      model: { ...modelAccesses[0], ...options.access } as ModelAccess,
      limits: { ...testLimits, ...options.limits },
      workspace: { folder: workspace, toolsFolder: workspace, repositories: [] },
      env: { PATH: process.env.PATH, HOME: folder },
      sink,
      gateway: { token: 'token', fetch: (path, init) => fetch(wire.url + path, init) },
      checkpoint: undefined,
      notes: [],
      keep: (checkpoint) => void kept.push(checkpoint),
      stepFinished: async () => {},
      keepOutput: async () => undefined,
      masker: createMasker([]),
      log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
      ...changes,
    })
    sessions.push(session)
    return session
  }
  return {
    model,
    folder: workspace,
    events: sink.events,
    kept,
    cutNext: wire.cutNext,
    slowNext: wire.slowNext,
    open,
    eventsOf: (type) => sink.events.filter((event) => event.type === type).map(({ data }) => data) as never,
    async [Symbol.asyncDispose]() {
      for (const session of sessions) await session.close()
      await wire.close()
      await model.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export function turn(message: string, changes: Partial<TurnInput> = {}): TurnInput {
  return { turn_id: crypto.randomUUID(), number: 1, message, messages: [], ...changes }
}

export function said(text: string, mode: TurnMessage['mode'] = 'steer'): TurnMessage {
  return { message_id: crypto.randomUUID(), mode, text }
}

/** Between the agent and the model: lets everything through, but can break an answer off at any byte, or let it come slowly. */
async function startCuttingProxy(target: string) {
  let msPerByte = 0
  let cut: { bytes: number; ends: boolean } | undefined
  const server = createServer((request, response) => {
    const forwarded = httpRequest(
      target + request.url,
      { method: request.method, headers: request.headers },
      (answer) => {
        const here = cut
        cut = undefined
        let sent = 0
        response.writeHead(answer.statusCode ?? 500, answer.headers)
        response.flushHeaders()
        if (msPerByte > 0) {
          const pauseMs = msPerByte
          msPerByte = 0
          void dribble(answer, response, pauseMs).catch(() => response.destroy())
          return
        }
        answer.on('data', (bytes: Buffer) => {
          if (response.writableEnded) return
          const part = here ? bytes.subarray(0, here.bytes - sent) : bytes
          sent += part.length
          const isCut = here !== undefined && sent >= here.bytes
          // What was written before a connection breaks shall arrive first.
          const written = () => isCut && !here.ends && response.destroy()
          if (part.length > 0) response.write(part, written)
          else written()
          if (!isCut) return
          answer.destroy()
          if (here.ends) response.end()
        })
        answer.on('end', () => response.end())
        answer.on('error', () => response.destroy())
      },
    )
    forwarded.on('error', () => response.destroy())
    response.on('close', () => forwarded.destroy())
    request.pipe(forwarded)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    slowNext(ms: number) {
      msPerByte = ms
    },
    cutNext(next: { bytes: number; ends: boolean } | undefined) {
      cut = next
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function dribble(answer: IncomingMessage, response: ServerResponse, pauseMs: number): Promise<void> {
  for await (const bytes of answer) {
    for (const byte of bytes as Buffer) {
      response.write(Buffer.of(byte))
      await delay(pauseMs)
    }
  }
  response.end()
}
