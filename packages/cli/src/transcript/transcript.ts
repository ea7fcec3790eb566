import { open } from 'node:fs/promises'
import { AppError, type SessionEvent } from '@openoz/protocol'
import type { CommandContext } from '../command-context.ts'
import type { Connection } from '../connection.ts'
import { createMarkdown } from './markdown.ts'

type Context = CommandContext & { connection: Connection }

interface TranscriptOptions {
  runId: string
  format?: 'json' | 'markdown'
  out?: string
  full?: boolean
}

/** Written while it is read: a transcript may be larger than what fits into memory. */
export async function transcript({ connection, output }: Context, options: TranscriptOptions): Promise<number> {
  const format = options.format ?? (output.isJson ? 'json' : 'markdown')
  const pieces = format === 'json' ? jsonPieces(connection, options.runId) : markdownPieces(connection, options)
  // The first piece comes before the file: a run that does not exist leaves none behind.
  const first = await pieces.next()
  if (options.out === undefined) {
    if (!first.done) output.write(first.value)
    for await (const piece of pieces) output.write(piece)
    return 0
  }
  await using file = await openForWriting(options.out)
  if (!first.done) await file.write(first.value)
  for await (const piece of pieces) await file.write(piece)
  output.note(`Saved as ${options.out}.`)
  return 0
}

async function openForWriting(path: string) {
  try {
    return await open(path, 'w')
  } catch (error) {
    throw new AppError('flag_invalid', { option: '--out', problem: (error as Error).message }, { cause: error })
  }
}

/** What the link leads to, as it is. */
async function* jsonPieces({ dialer, apiKey, client }: Connection, runId: string): AsyncGenerator<string> {
  const answer = await dialer.fetch(`/api/v1/agent/runs/${encodeURIComponent(runId)}/transcript`, {
    redirect: 'manual',
    headers: { authorization: `Bearer ${apiKey}` },
  })
  await answer.body?.cancel()
  // A refusal has its words in the answer to the simpler question.
  if (answer.status !== 302) await client.runs.get(runId)
  const location = answer.headers.get('location') ?? ''
  // The link has the public address; from here the server may be reached by another one only.
  const path = location.slice(Math.max(0, location.indexOf('/api/v1/')))
  const document = await dialer.fetch(path)
  if (!document.ok || !document.body)
    throw new AppError('server_answer_unreadable', { url: dialer.serverUrl, status: document.status })
  yield* document.body.pipeThrough(new TextDecoderStream())
  yield '\n'
}

async function* markdownPieces(
  { client }: Connection,
  { runId, full = false }: TranscriptOptions,
): AsyncGenerator<string> {
  const run = await client.runs.get(runId)
  const markdown = createMarkdown({ isFull: full })
  yield markdown.head(run)
  for (let since = 0; since < run.last_event_sequence; ) {
    const page = await client.runs.events(runId, { since, limit: 500 })
    for (const event of page.events) yield markdown.add(event as SessionEvent)
    if (page.events.length === 0) break
    since = page.next_since
  }
  yield markdown.end()
}
