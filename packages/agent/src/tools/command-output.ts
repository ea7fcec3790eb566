import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MaskingStream } from '@openoz/machine'
import { createOutputDecoder, wholeCharacters } from '../live-output.ts'

/** What the model reads at once: the beginning says what was done, the end how it went. */
const keptCharacters = 30_000

export interface CommandOutput {
  push(bytes: Uint8Array): void
  /** The end of the output. Safe to call twice. */
  end(): void
  /** There is something that was not taken yet. */
  readonly hasNew: boolean
  /** What came since it was last called: whole, or head and tail with a line between them that says how much is missing. */
  takeNew(): string
  /** The same without taking it. */
  peekNew(): string
  /** Where the whole output is, when it is too long for one look. undefined also when there was no room to keep it. */
  file(): string | undefined
  /** Safe to call twice. */
  dispose(): Promise<void>
}

export interface CommandOutputOptions {
  masking: MaskingStream
  /** Gets everything, as masked text. */
  onText: (text: string) => void
  /** What the text goes through before it is masked. */
  filter?: { push(text: string): string; end(): string }
  /** The whole output is kept up to here, for people: `limits.output_max_bytes`. */
  maxBytes: number
  /** Where to keep it. Default: the system's temporary folder. */
  scratchFolder?: string
}

/**
 * Takes a command's output of any size in bounded memory: the first and last 15,000 characters of what was not read yet, and everything in a
 * temporary file. Secrets are masked before it is kept anywhere.
 */
export async function createCommandOutput(options: CommandOutputOptions): Promise<CommandOutput> {
  const { masking, onText, filter, maxBytes, scratchFolder = tmpdir() } = options
  const decoder = createOutputDecoder()
  const file = await createOutputFile(scratchFolder, maxBytes)
  const unread = createExcerpt()
  let length = 0
  let hasEnded = false

  function keep(text: string): void {
    if (text === '') return
    onText(text)
    length += text.length
    unread.push(text)
    file.write(text)
  }

  return {
    push(bytes) {
      if (hasEnded) return
      const text = decoder.push(bytes)
      keep(masking.push(filter ? filter.push(text) : text))
    },
    end() {
      if (hasEnded) return
      hasEnded = true
      const text = decoder.end()
      keep(masking.push(filter ? filter.push(text) + filter.end() : text))
      keep(masking.flush())
      file.close()
    },
    get hasNew() {
      return unread.length > 0
    },
    takeNew() {
      const text = unread.text()
      unread.clear()
      return text
    },
    peekNew: unread.text,
    file: () => (length > keptCharacters ? file.path() : undefined),
    dispose: file.dispose,
  }
}

/** Head and tail of a text. */
function createExcerpt() {
  let head = ''
  let tail = ''
  let length = 0

  return {
    get length() {
      return length
    },
    push(text: string): void {
      length += text.length
      const forHead = wholeCharacters(text, keptCharacters / 2 - head.length)
      head += forHead
      tail += text.slice(forHead.length)
      // Cut only once it has doubled: a slice at every chunk would copy it each time.
      if (tail.length > keptCharacters) tail = lastCharacters(tail)
    },
    text(): string {
      const end = lastCharacters(tail)
      const missing = length - head.length - end.length
      return missing <= 0 ? head + end : `${head}\n\n[… ${missing} characters are left out here …]\n\n${end}`
    },
    clear(): void {
      head = ''
      tail = ''
      length = 0
    },
  }
}

function lastCharacters(text: string): string {
  if (text.length <= keptCharacters / 2) return text
  const cut = text.slice(-keptCharacters / 2)
  return /^[\uDC00-\uDFFF]/.test(cut) ? cut.slice(1) : cut
}

/** A copy for people, never longer than `maxBytes`, which is all that the control plane takes. A full disk costs the copy and nothing else: what the command itself could not write it says itself. */
async function createOutputFile(scratchFolder: string, maxBytes: number) {
  const cutNote = Buffer.from(`\n[Cut here: the output is longer than ${maxBytes} bytes.]\n`)
  const room = maxBytes - cutNote.length
  let descriptor: number | undefined
  let folder: string | undefined
  let isWhole = true
  let size = 0
  try {
    folder = await mkdtemp(join(scratchFolder, 'oz-output-'))
    descriptor = openSync(join(folder, 'output.txt'), 'wx', 0o600)
  } catch {
    isWhole = false
  }

  function close(): void {
    if (descriptor === undefined) return
    closeSync(descriptor)
    descriptor = undefined
  }

  /** Gives back the room that the copy took: somebody else needs it. */
  function giveUp(): void {
    isWhole = false
    close()
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
  }

  return {
    write(text: string): void {
      if (descriptor === undefined) return
      const bytes = Buffer.from(text)
      try {
        if (size + bytes.length <= room) {
          size += writeAll(descriptor, bytes)
          return
        }
        writeAll(descriptor, cutNote)
        close()
      } catch {
        giveUp()
      }
    },
    close,
    path: () => (isWhole && folder !== undefined ? join(folder, 'output.txt') : undefined),
    async dispose() {
      isWhole = false
      close()
      if (folder !== undefined) await rm(folder, { recursive: true, force: true })
    },
  }
}

/** The last bytes before a disk is full are written without an error; the next ones say it. */
function writeAll(descriptor: number, bytes: Uint8Array): number {
  for (let done = 0; done < bytes.length; ) done += writeSync(descriptor, bytes, done)
  return bytes.length
}
