import type { IncomingMessage } from 'node:http'
import { AppError, type ModelWire } from '@openoz/protocol'
import { field } from './json-field.ts'
import { type FoundMembers, findMembers, setMembers } from './json-members.ts'

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

/** `inPath`: on wires where the path names the model, and says whether the answer is a stream; the body then passes as it is. */
export function readModelRequest(body: Buffer, inPath?: { model: string; isStream: boolean }): ModelRequest {
  if (inPath) return { ...inPath, wantsUsage: false, bytes: body.length, bodyFor: () => body }
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
export function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const encoding = request.headers['content-encoding']
  const tooLarge = () => new AppError('body_too_large', { maxBytes })
  return new Promise((resolve, reject) => {
    if (encoding && encoding !== 'identity')
      return reject(
        new AppError('invalid_request', { problem: `The body is compressed (${encoding}); send it plain.` }),
      )
    if (Number(request.headers['content-length'] ?? 0) > maxBytes) return reject(tooLarge())
    const chunks: Buffer[] = []
    let bytes = 0
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= maxBytes) chunks.push(chunk)
      else {
        // The rest is thrown away as it comes: a client that is cut off while it sends does not read its answer.
        request.removeAllListeners('data').resume()
        reject(tooLarge())
      }
    })
    request.once('end', () => resolve(chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks)))
    request.once('error', reject)
    request.once('close', () => reject(new Error('the client went away')))
  })
}
