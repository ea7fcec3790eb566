import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text as readText } from 'node:stream/consumers'
import type { ChatMessage, Step } from './scripted-conversation.ts'
import { nextStep } from './scripted-steps.ts'

/**
 * The stand-in for a language model, for people who want to see openoz work before they connect one. A process of its own that speaks OpenAI's
 * Chat Completions over loopback, streaming and not, and knows a few tasks in `demo/sample-project`. What it says depends on what
 * its tools really answered.
 *
 * Started by the demo: prints `{"url": …}` once it listens, and ends when its stdin does.
 */
export const modelName = 'scripted-demo'

const wordsPerSecond = 60

if (import.meta.main) {
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      response.statusCode = 500
      response.end(JSON.stringify({ error: { message: error instanceof Error ? error.message : 'failed' } }))
    })
  })
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address() as AddressInfo
    console.log(JSON.stringify({ url: `http://127.0.0.1:${port}/v1` }))
  })
  process.stdin.resume()
  process.stdin.once('end', () => process.exit(0))
}

interface ChatRequest {
  messages: ChatMessage[]
  stream?: boolean
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const route = `${request.method} ${request.url?.split('?')[0]}`
  if (route === 'GET /v1/models') {
    sendJson(response, {
      object: 'list',
      data: [{ id: modelName, object: 'model', created: 0, owned_by: 'openoz-demo' }],
    })
  } else if (route === 'POST /v1/chat/completions') {
    const { messages, stream } = JSON.parse(await readText(request)) as ChatRequest
    const step = nextStep(messages)
    const usage = usageOf(messages, step)
    if (stream) await sendStream(response, step, usage)
    else sendJson(response, { ...envelope('chat.completion'), choices: [{ index: 0, ...wholeChoice(step) }], usage })
  } else {
    response.statusCode = 404
    sendJson(response, { error: { message: `There is no ${route} here.`, type: 'invalid_request_error' } })
  }
}

function sendJson(response: ServerResponse, body: unknown): void {
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(body))
}

async function sendStream(response: ServerResponse, step: Step, usage: Usage): Promise<void> {
  response.setHeader('content-type', 'text/event-stream')
  const send = (choice: object, more: object = {}) =>
    response.write(
      `data: ${JSON.stringify({ ...envelope('chat.completion.chunk'), choices: [{ index: 0, ...choice }], ...more })}\n\n`,
    )
  send({ delta: { role: 'assistant', content: '' }, finish_reason: null })
  for (const word of step.text.split(/(?<=\s)/)) {
    send({ delta: { content: word }, finish_reason: null })
    await new Promise((resolve) => setTimeout(resolve, 1000 / wordsPerSecond))
  }
  const call = toolCall(step)
  if (call) send({ delta: { tool_calls: [{ index: 0, ...call }] }, finish_reason: null })
  send({ delta: {}, finish_reason: call ? 'tool_calls' : 'stop' })
  response.write(`data: ${JSON.stringify({ ...envelope('chat.completion.chunk'), choices: [], usage })}\n\n`)
  response.end('data: [DONE]\n\n')
}

function wholeChoice(step: Step): object {
  const call = toolCall(step)
  const message = { role: 'assistant', content: step.text, ...(call && { tool_calls: [call] }) }
  return { message, finish_reason: call ? 'tool_calls' : 'stop' }
}

function toolCall({ call }: Step): { id: string; type: 'function'; function: object } | undefined {
  if (!call) return undefined
  const id = `call_${Math.random().toString(36).slice(2, 12)}`
  return { id, type: 'function', function: { name: call.tool, arguments: JSON.stringify(call.input) } }
}

function envelope(object: string) {
  return { id: 'chatcmpl-demo', object, created: Math.floor(Date.now() / 1000), model: modelName }
}

interface Usage {
  prompt_tokens: number
  completion_tokens: number
  total_tokens: number
}

/** Four characters a token, roughly what real models count. */
function usageOf(messages: ChatMessage[], step: Step): Usage {
  const prompt = Math.ceil(JSON.stringify(messages).length / 4)
  const completion = Math.ceil(JSON.stringify(step).length / 4)
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion }
}
