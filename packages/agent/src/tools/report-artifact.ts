import { open, stat } from 'node:fs/promises'
import { basename, extname, relative } from 'node:path'
import { v7 as uuid } from 'uuid'
import { z } from 'zod'
import { resolveInside } from './edit-path.ts'
import { errorCode, fileFailure } from './file-failure.ts'
import { imageKind } from './image-file.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

const artifactTypes = ['PULL_REQUEST', 'EXTERNAL_REFERENCE', 'PLAN', 'SCREENSHOT', 'FILE'] as const
const webAddress = z
  .string()
  .max(2_048)
  .refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol), 'must be an http or https address')
const label = z.string().trim().min(1).max(300)

/** What each type needs. One flat object for the model, since not every provider takes unions. */
const needed = {
  PULL_REQUEST: ['url', 'branch'],
  EXTERNAL_REFERENCE: ['reference_type', 'url'],
  PLAN: ['title', 'content'],
  SCREENSHOT: ['path'],
  FILE: ['path'],
} as const

const input = z
  .object({
    artifact_type: z.enum(artifactTypes),
    url: webAddress.optional().describe('PULL_REQUEST, EXTERNAL_REFERENCE: its address.'),
    branch: label.optional().describe('PULL_REQUEST: the branch that it is for.'),
    reference_type: label.optional().describe('EXTERNAL_REFERENCE: what it is, such as issue, document, deployment.'),
    title: label.optional().describe('EXTERNAL_REFERENCE, PLAN.'),
    path: z.string().min(1).max(4096).optional().describe('SCREENSHOT, FILE: a file in the workspace; it is uploaded.'),
    description: z.string().max(2_000).optional().describe('SCREENSHOT, FILE: what it shows.'),
    content: z.string().min(1).max(100_000).optional().describe('PLAN: its text, in markdown.'),
  })
  .superRefine((value, context) => {
    for (const field of needed[value.artifact_type]) {
      if (value[field] !== undefined) continue
      context.addIssue({ code: 'custom', path: [field], message: `is needed for ${value.artifact_type}` })
    }
  })
type Input = z.infer<typeof input>

const maxFileBytes = 100 * 1024 * 1024

export const reportArtifact: Tool<Input> = {
  name: 'report_artifact',
  kind: 'other',
  describe: () =>
    `Puts a result of your work before the people who asked for it: PULL_REQUEST {url, branch} that you opened, EXTERNAL_REFERENCE ` +
    `{reference_type, url, title?}, PLAN {title, content}, SCREENSHOT or FILE {path, description?} of the workspace, up to ` +
    `${maxFileBytes / 1024 / 1024} MB, which is uploaded. Files that belong into the repository need no report.`,
  input,
  title: ({ artifact_type, title, path, url }) => `Report ${artifact_type}: ${title ?? path ?? url ?? ''}`,
  locations: ({ path }) => (path === undefined ? [] : [{ path }]),
  run: report,
}

async function report(input: Input, call: ToolCall): Promise<ToolOutput> {
  call.signal.throwIfAborted()
  const { artifact_type } = input
  const artifact_uid = uuid()
  const data = await dataOf(input, artifact_uid, call)
  call.sink.emit({ type: 'artifact', data: { artifact_type, artifact_uid, ...data } })
  return { result: { artifact_uid }, shown: { artifact_type, artifact_uid, ...data, content: undefined } }
}

async function dataOf(input: Input, uid: string, call: ToolCall): Promise<Record<string, unknown>> {
  const { artifact_type, url, branch, reference_type, title, content, path = '', description } = input
  switch (artifact_type) {
    case 'PULL_REQUEST':
      return { url, branch }
    case 'EXTERNAL_REFERENCE':
      return { reference_type, url, title }
    case 'PLAN':
      return { document_uid: uid, title, content }
    case 'SCREENSHOT':
    case 'FILE':
      return { ...(await upload(path, artifact_type, call)), description }
    default:
      return artifact_type satisfies never
  }
}

async function upload(name: string, type: 'SCREENSHOT' | 'FILE', call: ToolCall): Promise<Record<string, unknown>> {
  const path = await resolveInside(name, call.workspace)
  try {
    const found = await stat(path)
    if (found.isDirectory()) throw new Error(`${name} is a folder; pack it into one file first.`)
    if (!found.isFile()) throw new Error(`${name} is no regular file.`)
    if (found.size > maxFileBytes)
      throw new Error(`${name} has ${found.size} bytes; at most ${maxFileBytes} are taken.`)
    const mime_type = await mimeType(path)
    if (type === 'SCREENSHOT' && !mime_type.startsWith('image/'))
      throw new Error(`${name} is no picture; report it as FILE.`)
    const blob_id = await call.keepOutput(path, mime_type)
    if (blob_id === undefined) throw new Error(`${name} could not be uploaded; nothing was reported. Try again later.`)
    const filepath = relative(call.workspace.toolsFolder, path)
    return { filepath, filename: basename(path), mime_type, size_bytes: found.size, blob_id }
  } catch (error) {
    if (errorCode(error) === 'ENOENT') throw new Error(`${name} does not exist.`)
    throw fileFailure(error, name)
  }
}

const mimeTypes: Record<string, string> = {
  '.csv': 'text/csv',
  '.html': 'text/html',
  '.json': 'application/json',
  '.md': 'text/markdown',
  '.mp4': 'video/mp4',
  '.pdf': 'application/pdf',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain',
  '.webm': 'video/webm',
  '.xml': 'application/xml',
  '.zip': 'application/zip',
}

async function mimeType(path: string): Promise<string> {
  await using file = await open(path)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(64 * 1024))
  const head = buffer.subarray(0, bytesRead)
  const image = imageKind(head)?.mediaType
  if (image !== undefined) return image
  return mimeTypes[extname(path).toLowerCase()] ?? (head.includes(0) ? 'application/octet-stream' : 'text/plain')
}
