import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { messageOf } from '@openoz/protocol'
import { firstEnd } from '../child-end.ts'
import type { LineRange } from './file-lines.ts'

export const maxPdfBytes = 50 * 1024 * 1024
/** Thousands of pages of text take less. */
const defaultTimeoutMs = 20_000
/** A small PDF may unfold into gigabytes, which must not end the whole agent. */
const maxMemoryMegabytes = 512

export interface PdfText {
  content: string
  pages: LineRange
  totalPages: number
  note?: string
}

export interface PdfRequest {
  bytes: Uint8Array
  range: LineRange | undefined
  maxCharacters: number
}

/** What `pdf-worker.ts` answers. */
type Answer = { text: PdfText } | { problem: string }

/**
 * The text of a PDF's pages, as far as it fits. Rejects, in words for the model, for what cannot be read, or with the signal's reason; the thread
 * that reads it has ended then.
 */
export async function pdfText(
  bytes: Uint8Array,
  range: LineRange | undefined,
  options: { maxCharacters: number; signal: AbortSignal; timeoutMs?: number },
): Promise<PdfText> {
  const { maxCharacters, signal, timeoutMs = defaultTimeoutMs } = options
  signal.throwIfAborted()
  // A copy of its own, which is handed over without another one.
  const copy = new Uint8Array(bytes)
  const worker = new Worker(workerProgram(), {
    workerData: { bytes: copy, range, maxCharacters } satisfies PdfRequest,
    transferList: [copy.buffer],
    resourceLimits: { maxOldGenerationSizeMb: maxMemoryMegabytes },
    env: {},
    execArgv: [],
    // What the library has to say of a broken file is not the agent's to print.
    stdout: true,
    stderr: true,
  })
  try {
    const answer = await firstEnd(answerOf(worker), { timeoutMs, signal })
    signal.throwIfAborted()
    if (answer === 'stopped' || answer === 'timed_out') {
      const seconds = Math.round(timeoutMs / 1_000)
      throw new Error(
        `is a PDF that takes more than ${seconds} s to read. Ask for fewer pages with lines, or use a command.`,
      )
    }
    if ('problem' in answer) throw new Error(answer.problem)
    return answer.text
  } finally {
    await worker.terminate()
  }
}

async function answerOf(worker: Worker): Promise<Answer> {
  try {
    const [answer] = (await once(worker, 'message')) as [Answer]
    return answer
  } catch (error) {
    return { problem: `is a PDF that cannot be read: ${messageOf(error)}` }
  }
}

/** Beside this file; in a bundle, whose files end otherwise, beside the programs. */
function workerProgram(): URL {
  return new URL(`./pdf-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.mjs'}`, import.meta.url)
}
