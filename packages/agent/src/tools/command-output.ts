import { closeSync, openSync, writeSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MaskingStream } from '@openoz/machine'
import { createOutputDecoder, wholeCharacters } from '../live-output.ts'

/** What the model reads of one command: the beginning says what was done, the end how it went. */
const keptCharacters = 30_000
/** The whole output is kept up to here, for people; 200 MB of a runaway command are not worth their place. */
const maxFileBytes = 16 * 1024 * 1024

export interface CommandOutput {
  push(bytes: Uint8Array): void
  /** The end of the output. */
  end(): void
  /** Head and tail, with a line between them that says how much is missing. Complete when it was short. */
  text(): string
  /** Where the whole output is, when `text` is only a part of it. */
  file(): string | undefined
  dispose(): Promise<void>
}

/**
 * Takes a command's output of any size in bounded memory: the first and last 15,000 characters, and everything in a temporary file. Secrets are
 * masked before it is kept anywhere. `onText` gets everything, as text.
 */
export async function createCommandOutput(options: {
  masking: MaskingStream
  onText: (text: string) => void
}): Promise<CommandOutput> {
  const { masking, onText } = options
  const folder = await mkdtemp(join(tmpdir(), 'oz-output-'))
  const path = join(folder, 'output.txt')
  const decoder = createOutputDecoder()
  let file: number | undefined = openSync(path, 'wx', 0o600)
  let fileBytes = 0
  let head = ''
  let tail = ''
  let length = 0

  function keep(text: string): void {
    if (text === '') return
    onText(text)
    length += text.length
    const forHead = wholeCharacters(text, keptCharacters / 2 - head.length)
    head += forHead
    tail += text.slice(forHead.length)
    // Cut only once it has doubled: a slice at every chunk would copy it each time.
    if (tail.length > keptCharacters) tail = lastCharacters(tail)
    writeToFile(text)
  }

  function writeToFile(text: string): void {
    if (file === undefined) return
    const bytes = Buffer.from(text)
    try {
      if (fileBytes + bytes.length <= maxFileBytes) fileBytes += writeSync(file, bytes)
      else stopFile(`\n[Cut here: the output is longer than ${maxFileBytes} bytes.]\n`)
    } catch {
      // No room for a copy. Head and tail are in memory, and what the command itself could not write it says itself.
      stopFile('')
    }
  }

  function stopFile(lastWords: string): void {
    if (file === undefined) return
    try {
      writeSync(file, lastWords)
    } catch {
      // As above.
    }
    closeSync(file)
    file = undefined
  }

  return {
    push: (bytes) => keep(masking.push(decoder.push(bytes))),
    end() {
      keep(masking.push(decoder.end()))
      keep(masking.flush())
      stopFile('')
    },
    text() {
      const end = lastCharacters(tail)
      const missing = length - head.length - end.length
      if (missing <= 0) return head + end
      return `${head}\n\n[… ${missing} characters are left out here …]\n\n${end}`
    },
    file: () => (length > keptCharacters ? path : undefined),
    async dispose() {
      stopFile('')
      await rm(folder, { recursive: true, force: true })
    },
  }
}

function lastCharacters(text: string): string {
  if (text.length <= keptCharacters / 2) return text
  const cut = text.slice(-keptCharacters / 2)
  return /^[\uDC00-\uDFFF]/.test(cut) ? cut.slice(1) : cut
}
