import { AppError } from '@openoz/protocol'
import { field } from './json-field.ts'
import { type FoundMembers, findMembers, setMembers } from './json-members.ts'
import type { ModelWire } from './providers.ts'

const wantedMembers = ['model', 'stream', 'stream_options'] as const

/** What a client sends to a model, as far as the gateway has to know it. */
export interface ModelRequest {
  model: string
  isStream: boolean
  /** The client asked for the usage itself. */
  wantsUsage: boolean
  bytes: number
  /** The body for the provider. `askForUsage` has an effect on streams of Chat Completions only: the other wires tell anyway. */
  bodyFor(upstreamModel: string, wire: ModelWire, askForUsage: boolean): Buffer
}

export function readModelRequest(body: Buffer): ModelRequest {
  const found = find(body)
  const { model, stream, stream_options: streamOptions } = found.members
  if (typeof model?.value !== 'string' || model.value === '')
    throw new AppError('invalid_request', { problem: 'The body names no `model`.' })
  const isStream = stream?.value === true
  return {
    model: model.value,
    isStream,
    wantsUsage: field(streamOptions?.value, 'include_usage') === true,
    bytes: body.length,
    bodyFor(upstreamModel, wire, askForUsage) {
      if (wire !== 'openai-chat' || !isStream || !askForUsage) return setMembers(body, found, { model: upstreamModel })
      const options = typeof streamOptions?.value === 'object' ? streamOptions.value : {}
      return setMembers(body, found, { model: upstreamModel, stream_options: { ...options, include_usage: true } })
    },
  }
}

function find(body: Buffer): FoundMembers<(typeof wantedMembers)[number]> {
  try {
    return findMembers(body, wantedMembers)
  } catch (error) {
    throw new AppError('json_malformed', { problem: (error as Error).message })
  }
}

/** Rejects with `body_too_large` as soon as it is known, without reading on. */
export async function readBody(request: Request, maxBytes: number): Promise<Buffer> {
  const encoding = request.headers.get('content-encoding')
  if (encoding && encoding !== 'identity')
    throw new AppError('invalid_request', { problem: `The body is compressed (${encoding}); send it plain.` })
  const declared = request.headers.get('content-length')
  if (declared !== null) {
    if (Number(declared) > maxBytes) throw new AppError('body_too_large', { maxBytes })
    // A declared length is kept to by the HTTP parser, and this way is the shorter one.
    return Buffer.from(await request.arrayBuffer())
  }
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of request.body ?? []) {
    bytes += chunk.length
    if (bytes > maxBytes) throw new AppError('body_too_large', { maxBytes })
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}
