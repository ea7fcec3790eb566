import { bedrockConverse } from './bedrock-wire.ts'
import { googleGenerateContent } from './google-wire.ts'
import type { ModelWire, ScriptedStep } from './scripted-model.ts'
import { callsOf, finishOf, overloaded, textPieces, tokensOf } from './scripted-step.ts'

/** How an answer of the script looks on one provider's wire. A piece is what is written at once. */
export interface Wire {
  name: ModelWire
  /** What the paths of its requests look like; the group `model` where the path names it. */
  path: RegExp
  contentType: string
  pieces(step: ScriptedStep, model: string): (string | Buffer)[]
  /** How the provider says in the middle of a stream that it cannot go on. */
  failure: string | Buffer
  /** Where it has a route for answers in one piece: the route, and such an answer. */
  whole?: { path: RegExp; answer(step: ScriptedStep, model: string): unknown }
}

export const wires: readonly Wire[] = [
  {
    name: 'openai-chat',
    path: /\/chat\/completions$/,
    contentType: 'text/event-stream',
    pieces: chatPieces,
    failure: data({ error: { type: 'server_error', message: overloaded } }),
  },
  {
    name: 'openai-responses',
    path: /\/responses$/,
    contentType: 'text/event-stream',
    pieces: responsesPieces,
    failure: event('error', {
      sequence_number: 9,
      error: { type: 'server_error', code: 'server_error', message: overloaded },
    }),
  },
  {
    name: 'anthropic-messages',
    path: /\/messages$/,
    contentType: 'text/event-stream',
    pieces: messagesPieces,
    failure: event('error', { error: { type: 'overloaded_error', message: overloaded } }),
  },
  googleGenerateContent,
  bedrockConverse,
]

function data(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`
}

function event(type: string, content: object): string {
  return `event: ${type}\n${data({ type, ...content })}`
}

function chatPieces(step: ScriptedStep, model: string): string[] {
  const frame = { id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model }
  const delta = (content: object) => data({ ...frame, choices: [{ index: 0, delta: content, finish_reason: null }] })
  const { input, output, cached, reasoning } = tokensOf(step)
  return [
    delta({ role: 'assistant', content: '' }),
    ...(step.reasoning === undefined ? [] : [delta({ reasoning_content: step.reasoning })]),
    ...textPieces(step).map((content) => delta({ content })),
    ...callsOf(step).flatMap(({ id, name, json }, index) => [
      delta({ tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }] }),
      delta({ tool_calls: [{ index, function: { arguments: json } }] }),
    ]),
    data({ ...frame, choices: [{ index: 0, delta: {}, finish_reason: finishOf(step) }] }),
    data({
      ...frame,
      choices: [],
      usage: {
        prompt_tokens: input,
        completion_tokens: output,
        total_tokens: input + output,
        prompt_tokens_details: { cached_tokens: cached },
        completion_tokens_details: { reasoning_tokens: reasoning },
      },
    }),
    'data: [DONE]\n\n',
  ]
}

function responsesPieces(step: ScriptedStep, model: string): string[] {
  const response = { id: 'resp_1', object: 'response', created_at: 1, model, output: [] as unknown[] }
  const { input, output, cached, reasoning } = tokensOf(step)
  const pieces = [event('response.created', { response: { ...response, status: 'in_progress' } })]
  const item = (output_index: number, added: object, deltas: string[], done: object) => {
    pieces.push(event('response.output_item.added', { output_index, item: added }), ...deltas)
    pieces.push(event('response.output_item.done', { output_index, item: done }))
    response.output.push(done)
  }
  const texts = textPieces(step)
  if (texts.length > 0) {
    const message = { id: 'msg_1', type: 'message', role: 'assistant' }
    const deltas = texts.map((delta) =>
      event('response.output_text.delta', { item_id: 'msg_1', output_index: 0, content_index: 0, delta }),
    )
    const content = [{ type: 'output_text', text: texts.join(''), annotations: [] }]
    item(0, { ...message, status: 'in_progress', content: [] }, deltas, { ...message, status: 'completed', content })
  }
  for (const [index, { id, name, json }] of callsOf(step).entries()) {
    const call = { id: `fc_${index}`, type: 'function_call', call_id: id, name }
    const at = (texts.length > 0 ? 1 : 0) + index
    const delta = event('response.function_call_arguments.delta', { item_id: call.id, output_index: at, delta: json })
    item(at, { ...call, status: 'in_progress', arguments: '' }, [delta], {
      ...call,
      status: 'completed',
      arguments: json,
    })
  }
  const finish = finishOf(step)
  const isIncomplete = finish === 'length' || finish === 'content_filter'
  const reason = finish === 'length' ? 'max_output_tokens' : 'content_filter'
  const usage = {
    input_tokens: input,
    input_tokens_details: { cached_tokens: cached },
    output_tokens: output,
    output_tokens_details: { reasoning_tokens: reasoning },
    total_tokens: input + output,
  }
  const end = isIncomplete ? { status: 'incomplete', incomplete_details: { reason } } : { status: 'completed' }
  pieces.push(
    event(isIncomplete ? 'response.incomplete' : 'response.completed', { response: { ...response, ...end, usage } }),
  )
  return pieces
}

const anthropicStopReasons = {
  stop: 'end_turn',
  length: 'max_tokens',
  tool_calls: 'tool_use',
  content_filter: 'refusal',
} as const

function messagesPieces(step: ScriptedStep, model: string): string[] {
  const { input, output, cached, cacheWrite } = tokensOf(step)
  const usage = {
    input_tokens: input - cached - cacheWrite,
    cache_read_input_tokens: cached,
    cache_creation_input_tokens: cacheWrite,
    output_tokens: 1,
  }
  const message = { id: 'msg_1', type: 'message', role: 'assistant', model, content: [], stop_reason: null, usage }
  const pieces = [event('message_start', { message })]
  let index = 0
  const block = (content_block: object, deltas: object[]) => {
    pieces.push(event('content_block_start', { index, content_block }))
    pieces.push(...deltas.map((delta) => event('content_block_delta', { index, delta })))
    pieces.push(event('content_block_stop', { index }))
    index++
  }
  if (step.reasoning !== undefined) {
    const thought = { type: 'thinking_delta', thinking: step.reasoning }
    block({ type: 'thinking', thinking: '' }, [thought, { type: 'signature_delta', signature: 'c2lnbmF0dXJl' }])
  }
  const texts = textPieces(step)
  if (texts.length > 0)
    block(
      { type: 'text', text: '' },
      texts.map((text) => ({ type: 'text_delta', text })),
    )
  for (const { id, name, json } of callsOf(step)) {
    block({ type: 'tool_use', id, name, input: {} }, [{ type: 'input_json_delta', partial_json: json }])
  }
  const delta = { stop_reason: anthropicStopReasons[finishOf(step)], stop_sequence: null }
  pieces.push(event('message_delta', { delta, usage: { output_tokens: output } }), event('message_stop', {}))
  return pieces
}
