import { request as httpRequest } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import ajvFormats from 'ajv-formats'

/** The OpenAPI document as a contract: what it says of answers is held against real ones. */
export interface Operation {
  operationId: string
  method: string
  /** `/agent/runs/{runId}` */
  path: string
  action: string
  statuses: number[]
  parameters: { name: string; in: 'path' | 'query' | 'header'; required?: boolean; schema: object }[]
  requestBody: { content: Record<string, { schema: object }> } | undefined
}

interface DocumentOperation {
  operationId: string
  'x-action': string
  parameters?: Operation['parameters']
  requestBody?: Operation['requestBody']
  responses: Record<string, { content?: Record<string, { schema: object }> }>
}

export interface ApiDocument {
  paths: Record<string, Record<string, DocumentOperation>>
  components: { schemas: Record<string, object> }
}

export interface ApiRequest {
  path?: Record<string, string>
  query?: Record<string, string | string[]>
  json?: unknown
  body?: string
  headers?: Record<string, string>
  /** null: without one. */
  key?: string | null
}

export interface ApiAnswer {
  status: number
  contentType: string
  body: Buffer
}

export function operationsOf(document: ApiDocument): Operation[] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      operationId: operation.operationId,
      method: method.toUpperCase(),
      path,
      action: operation['x-action'],
      statuses: Object.keys(operation.responses).map(Number),
      parameters: operation.parameters ?? [],
      requestBody: operation.requestBody,
    })),
  )
}

/** Says what is wrong with an answer, by the document; undefined: it is as described. */
export function createAnswerCheck(
  document: ApiDocument,
): (operation: Operation, answer: ApiAnswer) => string | undefined {
  const ajv = new Ajv2020({ strict: false, allErrors: true })
  ajvFormats.default(ajv)
  ajv.addSchema({ $id: 'document', ...document })
  const compiled = new Map<string, ValidateFunction>()
  return ({ path, method }, { status, contentType, body }) => {
    const declared = document.paths[path]?.[method.toLowerCase()]?.responses[status]
    if (!declared) return `${status} is not declared: ${body.toString().slice(0, 300)}`
    const type = contentType.split(';', 1)[0] ?? ''
    const types = Object.keys(declared.content ?? {})
    if (types.length === 0) return body.length === 0 ? undefined : `${status} has no body by the document`
    // Bytes have the type that they were stored with.
    if (!types.includes(type)) return types.includes('application/octet-stream') ? undefined : `${type} is not declared`
    if (!/json$/.test(type)) return undefined
    const pointer = ['paths', path, method.toLowerCase(), 'responses', `${status}`, 'content', type, 'schema']
      .map((key) => encodeURIComponent(key.replaceAll('~', '~0').replaceAll('/', '~1')))
      .join('/')
    const validate = compiled.get(pointer) ?? ajv.compile({ $ref: `document#/${pointer}` })
    compiled.set(pointer, validate)
    if (validate(JSON.parse(body.toString()))) return undefined
    return `${ajv.errorsText(validate.errors)} in ${body.toString().slice(0, 1000)}`
  }
}

export function urlOf(serverUrl: string, { path }: Operation, request: ApiRequest): URL {
  const filled = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(request.path?.[name] ?? ''))
  const url = new URL(`${serverUrl}/api/v1${filled}`)
  for (const [name, value] of Object.entries(request.query ?? {}))
    for (const item of Array.isArray(value) ? value : [value]) url.searchParams.append(name, item)
  return url
}

/** Of a stream that does not end the head is enough. */
export async function send(
  target: { serverUrl: string; key: string },
  operation: Operation,
  request: ApiRequest,
): Promise<ApiAnswer> {
  const key = request.key === undefined ? target.key : request.key
  const body = request.body ?? (request.json === undefined ? undefined : JSON.stringify(request.json))
  const stop = new AbortController()
  const response = await fetch(urlOf(target.serverUrl, operation, request), {
    method: operation.method,
    redirect: 'manual',
    signal: stop.signal,
    headers: {
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...(request.json === undefined ? {} : { 'content-type': 'application/json' }),
      ...request.headers,
    },
    ...(body === undefined ? {} : { body }),
  })
  const contentType = response.headers.get('content-type') ?? ''
  const answer = { status: response.status, contentType }
  if (!contentType.startsWith('text/event-stream'))
    return { ...answer, body: Buffer.from(await response.arrayBuffer()) }
  stop.abort()
  return { ...answer, body: Buffer.alloc(0) }
}

/** Says that it will send so many bytes, and waits for the answer instead. */
export function announce(
  target: { serverUrl: string; key: string },
  operation: Operation,
  { bytes, ...request }: ApiRequest & { bytes: number },
): Promise<ApiAnswer> {
  return new Promise((resolve, reject) => {
    const sending = httpRequest(urlOf(target.serverUrl, operation, request), {
      method: operation.method,
      headers: {
        authorization: `Bearer ${target.key}`,
        'content-type': 'application/json',
        'content-length': `${bytes}`,
      },
    })
    sending.on('error', reject)
    sending.on('response', async (response) => {
      const body = await buffer(response)
      sending.destroy()
      resolve({ status: response.statusCode ?? 0, contentType: response.headers['content-type'] ?? '', body })
    })
    sending.flushHeaders()
  })
}
