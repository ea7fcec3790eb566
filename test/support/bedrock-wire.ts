import { crc32 } from 'node:zlib'
import type { Wire } from './model-wires.ts'
import type { ScriptedStep } from './scripted-model.ts'
import { callsOf, finishOf, overloaded, textPieces, tokensOf } from './scripted-step.ts'

/** Amazon Bedrock's Converse: JSON in binary frames of `application/vnd.amazon.eventstream`. */
export const bedrockConverse: Wire = {
  name: 'bedrock-converse',
  path: /\/model\/(?<model>[^/]+)\/converse-stream$/,
  contentType: 'application/vnd.amazon.eventstream',
  pieces: converseFrames,
  failure: eventStreamFrame(
    { ':exception-type': 'serviceUnavailableException', ':message-type': 'exception' },
    { message: overloaded },
  ),
  whole: { path: /\/model\/(?<model>[^/]+)\/converse$/, answer: converseAnswer },
}

const stopReasons = {
  stop: 'end_turn',
  length: 'max_tokens',
  tool_calls: 'tool_use',
  content_filter: 'content_filtered',
} as const

function converseFrames(step: ScriptedStep): Buffer[] {
  const frames = [event('messageStart', { role: 'assistant' })]
  let contentBlockIndex = 0
  const block = (start: object | undefined, deltas: object[]) => {
    // Of text and thoughts there is no start on this wire.
    if (start) frames.push(event('contentBlockStart', { contentBlockIndex, start }))
    frames.push(...deltas.map((delta) => event('contentBlockDelta', { contentBlockIndex, delta })))
    frames.push(event('contentBlockStop', { contentBlockIndex }))
    contentBlockIndex++
  }
  if (step.reasoning !== undefined)
    block(undefined, [
      { reasoningContent: { text: step.reasoning } },
      { reasoningContent: { signature: 'c2lnbmF0dXJl' } },
    ])
  const texts = textPieces(step)
  if (texts.length > 0)
    block(
      undefined,
      texts.map((text) => ({ text })),
    )
  for (const { id, name, json } of callsOf(step))
    block({ toolUse: { toolUseId: id, name } }, [{ toolUse: { input: json } }])
  frames.push(event('messageStop', { stopReason: stopReasons[finishOf(step)] }))
  frames.push(event('metadata', { usage: usageOf(step), metrics: { latencyMs: 1 } }))
  return frames
}

function converseAnswer(step: ScriptedStep): unknown {
  const thought = { reasoningText: { text: step.reasoning, signature: 'c2lnbmF0dXJl' } }
  const content = [
    ...(step.reasoning === undefined ? [] : [{ reasoningContent: thought }]),
    ...(textPieces(step).length > 0 ? [{ text: textPieces(step).join('') }] : []),
    ...callsOf(step).map(({ id, name, json }) => ({ toolUse: { toolUseId: id, name, input: JSON.parse(json) } })),
  ]
  return {
    output: { message: { role: 'assistant', content } },
    stopReason: stopReasons[finishOf(step)],
    usage: usageOf(step),
    metrics: { latencyMs: 1 },
  }
}

/** Bedrock's `inputTokens` leave out what the cache took part in, its `totalTokens` do not. */
function usageOf(step: ScriptedStep): object {
  const { input, output, cached, cacheWrite } = tokensOf(step)
  return {
    inputTokens: input - cached - cacheWrite,
    outputTokens: output,
    totalTokens: input + output,
    cacheReadInputTokens: cached,
    cacheWriteInputTokens: cacheWrite,
  }
}

function event(type: string, payload: object): Buffer {
  return eventStreamFrame({ ':event-type': type, ':message-type': 'event' }, payload)
}

/** Length of all, length of the headers, their checksum; headers; payload; checksum of everything before. Integers are big-endian. */
export function eventStreamFrame(headers: Record<string, string>, payload: object): Buffer {
  const head = Buffer.concat(
    Object.entries({ ...headers, ':content-type': 'application/json' }).map(([name, value]) => {
      const bytes = Buffer.from(value)
      const length = Buffer.alloc(2)
      length.writeUInt16BE(bytes.length)
      // 7: the value is a string.
      return Buffer.concat([Buffer.from([name.length]), Buffer.from(name), Buffer.from([7]), length, bytes])
    }),
  )
  const body = Buffer.from(JSON.stringify(payload))
  const frame = Buffer.concat([Buffer.alloc(12), head, body, Buffer.alloc(4)])
  frame.writeUInt32BE(frame.length, 0)
  frame.writeUInt32BE(head.length, 4)
  frame.writeUInt32BE(crc32(frame.subarray(0, 8)), 8)
  frame.writeUInt32BE(crc32(frame.subarray(0, -4)), frame.length - 4)
  return frame
}
