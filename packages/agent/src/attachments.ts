import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { isDiskFull } from '@openoz/machine'
import { AppError, messageOf, type RunAttachment } from '@openoz/protocol'
import { type AgentChannel, isRefusal } from './channel.ts'
import { diskFull } from './disk-full.ts'
import { type EventSink, notice } from './event-sink.ts'

/**
 * Files that people gave the run, fetched into a folder of their own: outside of the workspace, so that they are neither in a repository nor saved
 * as work, and gone with the execution. The next execution fetches them anew.
 */
export interface Attachments {
  /** All that the run was given so far, as the control plane last said. */
  given: readonly RunAttachment[]
  /**
   * Fetches those that are not there yet. Answers what a model that knows the others must be told; undefined when there was nothing to fetch.
   * Rejects with `attachment_unavailable`, `disk_full`, what the control plane refused, or the signal's reason.
   */
  bring(signal: AbortSignal): Promise<string | undefined>
  /** What a model must be told that knows of none; undefined when none is there. */
  note(): string | undefined
  /** Never rejects. */
  remove(): Promise<void>
}

export function createAttachments(options: {
  given: readonly RunAttachment[]
  channel: Pick<AgentChannel, 'downloadBlobTo'>
  sink: EventSink
  /** A folder that goes with this task. Default: the system's temporary folder. */
  parent?: string | undefined
}): Attachments {
  const { channel, sink, parent = tmpdir() } = options
  /** For each that is there, its line of the note. */
  const there = new Map<string, string>()
  let folder: string | undefined

  async function fetchOne({ file_name: name, blob_id }: RunAttachment, signal: AbortSignal): Promise<string> {
    // The control plane has made it a plain name; whatever it says, nothing is written elsewhere.
    if (basename(name) !== name || name === '..' || name === '.' || name === '')
      throw new AppError('attachment_unavailable', { name: JSON.stringify(name), problem: 'its name is none.' })
    try {
      folder ??= await mkdtemp(join(parent, 'oz-attachments-'))
      const file = join(folder, name)
      await channel.downloadBlobTo(file, blob_id, signal)
      return file
    } catch (error) {
      signal.throwIfAborted()
      if (isRefusal(error)) throw error
      if (isDiskFull(error)) throw await diskFull(`the attachment ${name}`, parent, error)
      const problem = messageOf(error)
      throw new AppError('attachment_unavailable', { name, problem }, { cause: error })
    }
  }

  const attachments: Attachments = {
    given: options.given,
    async bring(signal) {
      const missing = attachments.given.filter(({ attachment_id }) => !there.has(attachment_id))
      if (missing.length === 0) return undefined
      for (const attachment of missing) {
        const { attachment_id, file_name, mime_type, size_bytes } = attachment
        const file = await fetchOne(attachment, signal)
        there.set(attachment_id, `- ${file_name} (${mime_type}, ${size_bytes} bytes): ${file}`)
      }
      notice(sink, 'info', `Attached: ${missing.map(({ file_name }) => file_name).join(', ')}.`)
      return noteOn(missing.map(({ attachment_id }) => there.get(attachment_id) ?? ''))
    },
    note: () => (there.size === 0 ? undefined : noteOn([...there.values()])),
    async remove() {
      if (folder !== undefined) await rm(folder, { recursive: true, force: true }).catch(() => {})
    },
  }
  return attachments
}

function noteOn(lines: string[]): string {
  const head =
    'Note from openoz: these files came with the task. They lie outside of the workspace; read_files takes their paths, also those of images.'
  return [head, ...lines].join('\n')
}
