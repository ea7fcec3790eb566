import type { Wire } from './model-wires.ts'
import type { ScriptedStep } from './scripted-model.ts'
import { callsOf, finishOf, overloaded, textPieces, tokensOf } from './scripted-step.ts'

/** Gemini's API: whole function calls instead of pieces of them, usage in every chunk, no mark at the end. */
export const googleGenerateContent: Wire = {
  name: 'google-generate-content',
  path: /\/models\/(?<model>[^/]+):streamGenerateContent$/,
  contentType: 'text/event-stream',
  pieces: (step, model) => chunks(step, model).map(data),
  failure: data({ error: { code: 503, message: overloaded, status: 'UNAVAILABLE' } }),
  whole: {
    path: /\/models\/(?<model>[^/]+):generateContent$/,
    answer(step, model) {
      const parts = chunks(step, model).flatMap(({ candidates: [candidate] }) => candidate?.content?.parts ?? [])
      const [last] = chunks(step, model).slice(-1)
      const candidate = { ...last?.candidates[0], content: { role: 'model', parts } }
      return { ...last, candidates: [candidate] }
    },
  },
}

interface Chunk {
  candidates: { index: number; content?: { role: string; parts: object[] }; finishReason?: string }[]
  usageMetadata: object
  modelVersion: string
  responseId: string
}

const finishReasons = {
  stop: 'STOP',
  tool_calls: 'STOP',
  length: 'MAX_TOKENS',
  content_filter: 'SAFETY',
} as const

function chunks(step: ScriptedStep, model: string): Chunk[] {
  const { input, output, cached, reasoning } = tokensOf(step)
  const read = { promptTokenCount: input, ...(cached && { cachedContentTokenCount: cached }) }
  const about = { modelVersion: model, responseId: 'response-1' }
  const chunk = (...parts: object[]): Chunk => ({
    candidates: [{ index: 0, content: { role: 'model', parts } }],
    usageMetadata: { ...read, totalTokenCount: input },
    ...about,
  })
  const written = { candidatesTokenCount: output - reasoning, ...(reasoning && { thoughtsTokenCount: reasoning }) }
  return [
    ...(step.reasoning === undefined ? [] : [chunk({ text: step.reasoning, thought: true })]),
    ...textPieces(step).map((text) => chunk({ text })),
    ...callsOf(step).map(({ id, name, json }) => chunk({ functionCall: { id, name, args: argumentsOf(json) } })),
    {
      candidates: [{ index: 0, finishReason: finishReasons[finishOf(step)] }],
      usageMetadata: { ...read, ...written, totalTokenCount: input + output },
      ...about,
    },
  ]
}

/** On this wire arguments are JSON in JSON: what is none can only arrive as a string. */
function argumentsOf(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return json
  }
}

function data(value: unknown): string {
  return `data: ${JSON.stringify(value)}\r\n\r\n`
}
