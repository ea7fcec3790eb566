import { describeError } from '@openoz/protocol'
import type { CommandEnd, CommandRun } from './command-run.ts'
import { exitCode } from './command-text.ts'
import type { ToolCall, ToolOutput } from './tool.ts'

/** Output usually comes in several pieces: an answer counts as complete after this long without more. */
const settledMs = 200
/** … and one that goes on and on is read after this. */
const maxSettleMs = 1_000

/** Waits for output, up to `waitMs`, and then a moment for the rest of it. Rejects with the signal's reason. */
export async function waitForOutput(run: CommandRun, waitMs: number, signal: AbortSignal): Promise<void> {
  const start = performance.now()
  if ((await run.nextNews(waitMs, signal)) !== 'output') return
  const deadline = Math.min(performance.now() + maxSettleMs, start + Math.max(waitMs, settledMs))
  for (;;) {
    const left = deadline - performance.now()
    if (left <= 0 || (await run.nextNews(Math.min(settledMs, left), signal)) !== 'output') return
  }
}

/** What the model gets of a kept command: new output, and its end, once. */
export async function resultOf(run: CommandRun, call: ToolCall): Promise<ToolOutput> {
  if (run.end) return { ...(await endOf(run, run.end, { call, id: run.id })), isError: undefined }
  const waiting = run.pendingInputBytes
  return runningResult(run, waiting > 0 ? `${waiting} bytes of input wait for the command to read them.` : undefined)
}

export function runningResult(run: CommandRun, note?: string): ToolOutput {
  const about = { status: 'running', command_id: run.id, ...(note === undefined ? {} : { note }) }
  return withText(about, run.takeNewOutput())
}

/** The last result of a command; after it the command is forgotten. `id` where the model knows it by one. */
export async function endOf(
  run: CommandRun,
  end: CommandEnd,
  { call, id }: { call: ToolCall; id?: string },
): Promise<ToolOutput> {
  const text = run.takeNewOutput()
  try {
    const blobId = await run.keepOutput()
    const known = id === undefined ? {} : { command_id: id }
    if (end.isTimedOut) {
      const error = `The command was still running after ${run.timeoutMs} ms and was ended, with everything that it had started.`
      return { ...withText({ status: 'timed_out', ...known, error }, text), isError: true, blobId }
    }
    const { signal } = end
    const about = {
      status: 'complete',
      ...known,
      // A command that says no has worked as a tool: what its exit code means is for the model to read.
      exit_code: exitCode(end),
      ...(signal ? { signal } : {}),
      ...(end.ranOutOfMemory
        ? { error: describeError('out_of_memory', { what: 'this command or a part of it' }) }
        : {}),
      ...(end.isOutputHeld
        ? { note: 'Something that the command started still runs in the background; its further output is not shown.' }
        : {}),
    }
    return { ...withText(about, text), blobId }
  } finally {
    await call.state.commands.forget(run)
  }
}

/** What there is of a command that was stopped together with the call that waited for it. */
export function stoppedResult(run: CommandRun, blobId?: string): ToolOutput {
  const error = 'This call was stopped before it ended, with everything that it had started.'
  return { ...withText({ status: 'stopped', error }, run.peekNewOutput()), isError: true, blobId }
}

function withText(about: Record<string, unknown>, text: string): ToolOutput {
  return {
    result: { ...about, output: text },
    shown: about,
    content: [{ type: 'content', content: { type: 'text', text } }],
  }
}
