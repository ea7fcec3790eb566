import { AppError, readAnswer } from '@openoz/protocol'
import type { Connection } from '../connection.ts'

export interface SavedPart {
  runId: string
  /** Index in the workspace's `repositories`. */
  index: number
  /** From 1; default: what the run goes on from. */
  attempt?: number | undefined
}

export async function downloadBundle(connection: Connection, part: SavedPart): Promise<Uint8Array> {
  const response = await download(connection, part, 'bundle')
  return new Uint8Array(await response.arrayBuffer())
}

export async function downloadDiff(connection: Connection, part: SavedPart): Promise<string> {
  const response = await download(connection, part, 'diff')
  return response.text()
}

async function download(
  connection: Connection,
  { runId, index, attempt }: SavedPart,
  what: 'bundle' | 'diff',
): Promise<Response> {
  const query = attempt === undefined ? '' : `?attempt=${attempt}`
  const path = `/api/v1/agent/runs/${encodeURIComponent(runId)}/workspace/${index}/${what}${query}`
  const response = await connection.dialer.fetch(path, { headers: { authorization: `Bearer ${connection.apiKey}` } })
  if (response.ok) return response
  await readAnswer(response)
  throw new AppError('server_answer_unreadable', { url: connection.serverUrl, status: response.status })
}
