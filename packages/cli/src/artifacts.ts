import { openAsBlob } from 'node:fs'
import { open, rm, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { AppError, type ArtifactResponse, maxArtifactBytes } from '@openoz/protocol'
import type { CommandContext } from './command-context.ts'
import type { Connection } from './connection.ts'
import { fileType } from './file-types.ts'
import { printJson } from './output.ts'
import { oneLine, plainText } from './plain-text.ts'
import { sendOnce } from './send-once.ts'
import { renderFields } from './table.ts'

type Context = CommandContext & { connection: Connection }

export async function uploadArtifact(
  { connection, output }: Context,
  options: { path: string; runId?: string; conversationId?: string; description?: string },
): Promise<number> {
  const { path, runId: run_id, conversationId: conversation_id, description } = options
  if ((run_id === undefined) === (conversation_id === undefined))
    throw new AppError('usage', { problem: 'Give either --run-id (or OZ_RUN_ID) or --conversation-id.' })
  const found = await stat(path).catch(() => undefined)
  if (!found?.isFile()) throw new AppError('usage', { problem: `${path} is no file that can be read.` })
  if (found.size > maxArtifactBytes)
    throw new AppError('usage', { problem: `${path} has ${found.size} bytes; at most ${maxArtifactBytes} are taken.` })
  const bytes = await openAsBlob(path, { type: fileType(path) })
  const query = { run_id, conversation_id, filepath: path, description }
  const uploaded = await sendOnce((once) => connection.client.artifacts.upload(query, bytes, once))
  if (output.isJson) printJson(output, uploaded)
  else if (output.format === 'text') output.line(uploaded.artifact_uid)
  else output.line(`Uploaded ${path} as artifact ${uploaded.artifact_uid}.`)
  return 0
}

export async function showArtifact({ connection, output }: Context, uid: string): Promise<number> {
  const artifact = await connection.client.artifacts.get(uid)
  if (output.isJson) {
    printJson(output, artifact)
    return 0
  }
  const { artifact_uid, artifact_type, created_at, data } = artifact
  const shown = (text: string | undefined) => (text === undefined ? undefined : oneLine(text))
  const more: [string, string | undefined][] =
    artifact_type === 'PLAN'
      ? [['Title', shown(data.title)]]
      : [
          ['File', artifact_type === 'FILE' ? shown(data.filepath) : undefined],
          ['Kind', shown(data.content_type)],
          ['Size', artifact_type === 'FILE' && data.size_bytes !== undefined ? `${data.size_bytes} bytes` : undefined],
          ['Description', shown(data.description)],
          ['Download', data.download_url],
          ['Until', data.expires_at],
        ]
  output.line(renderFields([['Artifact', artifact_uid], ['Type', artifact_type], ['Created', created_at], ...more]))
  if (artifact_type === 'PLAN') output.line(`\n${plainText(data.content)}`)
  return 0
}

export async function downloadArtifact(
  { connection, output }: Context,
  { uid, out }: { uid: string; out?: string },
): Promise<number> {
  const artifact = await connection.client.artifacts.get(uid)
  const bytes = await bytesOf(artifact, connection)
  // Its name comes from an agent: only its last part, and nothing that is there is replaced unasked.
  const file = out ?? ownName(artifact)
  await save(file, bytes, { mayReplace: out !== undefined })
  if (output.isJson) printJson(output, { artifact_uid: artifact.artifact_uid, path: file })
  else output.line(output.format === 'text' ? file : `Saved as ${file}.`)
  return 0
}

async function bytesOf(artifact: ArtifactResponse, { dialer }: Connection): Promise<AsyncIterable<Uint8Array>> {
  if (artifact.artifact_type === 'PLAN') return ReadableStream.from([Buffer.from(artifact.data.content)])
  const { download_url: link } = artifact.data
  // The link has the public address; from here the server may be reached by another one only.
  const answer = await dialer.fetch(link.slice(Math.max(0, link.indexOf('/api/v1/'))))
  if (!answer.ok) throw new AppError('server_answer_unreadable', { url: dialer.serverUrl, status: answer.status })
  return answer.body ?? ReadableStream.from([])
}

const imageEndings: Record<string, string> = { 'image/jpeg': '.jpg', 'image/svg+xml': '.svg' }

function ownName({ artifact_uid: uid, artifact_type: type, data }: ArtifactResponse): string {
  if (type === 'PLAN') return `plan-${safeName(uid)}.md`
  if (type === 'SCREENSHOT') {
    const ending = imageEndings[data.content_type] ?? /^image\/(\w+)$/.exec(data.content_type)?.[1]?.replace(/^/, '.')
    return `screenshot-${safeName(uid)}${ending ?? ''}`
  }
  return safeName(data.filename)
}

function safeName(text: string): string {
  const name = plainText(basename(text.replaceAll('\\', '/'))).replaceAll(/\s+/g, ' ')
  return name === '' || name === '.' || name === '..' ? 'artifact' : name
}

async function save(
  file: string,
  bytes: AsyncIterable<Uint8Array>,
  { mayReplace }: { mayReplace: boolean },
): Promise<void> {
  const handle = await open(file, mayReplace ? 'w' : 'wx').catch((error: NodeJS.ErrnoException) => {
    const problem = error.code === 'EEXIST' ? `${file} exists already; name another file` : error.message
    throw new AppError('flag_invalid', { option: '--out', problem }, { cause: error })
  })
  try {
    await handle.writeFile(bytes)
  } catch (error) {
    // The half of a file looks like a whole one.
    await rm(file, { force: true })
    throw error
  } finally {
    await handle.close()
  }
}
