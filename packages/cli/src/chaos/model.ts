import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text as readText } from 'node:stream/consumers'
import { sleep } from '@openoz/machine'
import { answerTo, type ChatMessage, idOf, resultsIn, type StepCall, sayingsIn } from './conversation-script.ts'
import { type Random, randomStream } from './random.ts'
import { ledgerFile, type RoundFolder } from './round-folder.ts'

/**
 * The mind of the round's agents: a loopback server that speaks OpenAI's Chat Completions and keeps no conversation of its own. Some answers come
 * slowly, some requests are refused as an overloaded provider refuses them. It writes down what the conversations hold that it is shown.
 */
export interface ChaosModel extends AsyncDisposable {
  url: string
  readonly seen: readonly ModelSeen[]
}

/** How often one request of a run held this message or this result; only the worst is kept. */
export interface ModelSeen {
  run: number
  /** `t0`, `n0.0` (see `idOf`), or a call's id. */
  id: string
  count: number
}

const modelName = 'chaos'

export async function startChaosModel(folder: RoundFolder, seed: string): Promise<ChaosModel> {
  const random = randomStream(seed, 'model')
  const seen = new Map<string, ModelSeen>()
  const server = createServer((request, response) => {
    answer(request, response, { folder, random, seen }).catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get seen() {
      return [...seen.values()]
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { folder, random, seen }: { folder: RoundFolder; random: Random; seen: Map<string, ModelSeen> },
): Promise<void> {
  const route = `${request.method} ${request.url?.split('?')[0]}`
  if (route === 'GET /v1/models') {
    return sendJson(response, 200, { object: 'list', data: [{ id: modelName, object: 'model', created: 0 }] })
  }
  if (route !== 'POST /v1/chat/completions') return sendJson(response, 404, { error: { message: `no ${route}` } })
  const { messages, stream } = JSON.parse(await readText(request)) as { messages: ChatMessage[]; stream?: boolean }
  note(messages, seen)
  if (random.chance(0.04)) return sendJson(response, 529, { error: { message: 'overloaded' } }, { 'retry-after': '1' })
  const next = answerTo(messages, (call) => commandOf(folder, call))
  const call = 'call' in next ? [toolCall(next.call)] : undefined
  const finish = call ? 'tool_calls' : 'stop'
  if (!stream) {
    const message = { role: 'assistant', content: next.text, ...(call ? { tool_calls: call } : {}) }
    return sendJson(response, 200, envelope({ choices: [{ index: 0, message, finish_reason: finish }], usage }))
  }
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const send = (body: object) => response.write(`data: ${JSON.stringify(envelope(body))}\n\n`)
  const say = (delta: object, finish_reason: string | null = null) =>
    send({ choices: [{ index: 0, delta, finish_reason }] })
  const pauseMs = random.chance(0.15) ? 120 : 0
  say({ role: 'assistant', content: '' })
  for (const word of next.text.split(/(?<=\s)/)) {
    if (pauseMs > 0) await sleep(pauseMs)
    say({ content: word })
  }
  if (call) say({ tool_calls: call.map((one, index) => ({ index, ...one })) })
  say({}, finish)
  send({ choices: [], usage })
  response.end('data: [DONE]\n\n')
}

const usage = { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110 }

function envelope(body: object): object {
  return { id: 'chatcmpl-chaos', object: 'chat.completion.chunk', created: 0, model: modelName, ...body }
}

function toolCall({ id, name, input }: { id: string; name: string; input: object }) {
  return { id, type: 'function', function: { name, arguments: JSON.stringify(input) } }
}

function sendJson(response: ServerResponse, status: number, body: object, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify(body))
}

function note(messages: ChatMessage[], seen: Map<string, ModelSeen>): void {
  const sayings = sayingsIn(messages)
  const run = sayings[0]?.run
  if (run === undefined) return
  const counts = new Map<string, number>()
  for (const id of [...sayings.map(idOf), ...resultsIn(messages)]) counts.set(id, (counts.get(id) ?? 0) + 1)
  for (const [id, count] of counts) {
    const key = `${run} ${id}`
    if ((seen.get(key)?.count ?? 0) < count) seen.set(key, { run, id, count })
  }
}

function commandOf(folder: RoundFolder, { run, turn, step, attempt, kind }: StepCall): string {
  const words = [ledgerFile(folder, run), '"$OZ_EXECUTION_ID"', turn, step, attempt, kind].join(' ')
  const program = `sh ${folder.effect} ${words}`
  const alone = '$(command -v setsid || echo nohup)'
  // Started by a shell that ends at once: init becomes their parent.
  if (kind === 'daemon') return `( ${alone} ${program} </dev/null >/dev/null 2>&1 & )`
  if (kind === 'clean-daemon') return `( env -i PATH="$PATH" ${alone} ${program} </dev/null >/dev/null 2>&1 & )`
  return program
}
