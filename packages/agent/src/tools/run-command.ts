import { z } from 'zod'
import { firstEnd } from '../child-end.ts'
import { endOf, runningResult, stoppedResult } from './command-result.ts'
import { type CommandRun, hastyGraceMs } from './command-run.ts'
import { commandLine } from './command-text.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

const input = z.object({
  command: z
    .string()
    .min(1)
    // The kernel takes 128 KiB for one argument.
    .max(100_000, 'is too long; write a script with edit_files and run that')
    .refine((text) => !text.includes('\0'), 'must not hold NUL characters'),
  background: z.boolean().optional().describe('Return at once with a command_id and let it run.'),
  pty: z.boolean().optional().describe('Run it in a pseudo-terminal, for programs that ask or draw.'),
  timeout_ms: z.int().min(1).max(86_400_000).optional().describe('The command is ended after this time.'),
})
type Input = z.infer<typeof input>

/** A command that cannot be started, or fails at once, says so within this time. */
const earlyLookMs = 500
/** A program in a terminal that says nothing for this long probably waits for someone to type. */
const quietMs = 5_000

export const runCommand: Tool<Input> = {
  name: 'run_command',
  kind: 'execute',
  describe: (limits) =>
    'Runs a shell command and returns its exit code and output (stdout and stderr together; the middle of a long output is left out; people ' +
    `can see its first ${Math.floor(limits.output_max_bytes / 1024 / 1024)} MB). ` +
    'Every command starts in the same folder, in a shell of its own: use `cd sub && …` within one command. Nothing is on stdin and there is ' +
    `no terminal, so use flags that ask no questions. Ended after timeout_ms (default ${limits.command_timeout_ms}). ` +
    'background: for servers, watchers and long builds; returns within a second with {status: "running", command_id}, and runs until it ends, ' +
    'timeout_ms (default: none) is over, or the session ends. Go on with read_command, write_to_command (its stdin is a pipe) and ' +
    'stop_command. pty: for programs that need a terminal (prompts, REPLs, debuggers); echoes its input, output without colours. ' +
    `Returns {status: "running", command_id} when it is silent for ${quietMs / 1_000} s, as when it waits for input; without a timeout_ms it may then go on as long as the session.`,
  input,
  title: (request) => commandLine(request),
  run: execute,
}

async function execute(
  { command, background = false, pty = false, timeout_ms }: Input,
  call: ToolCall,
): Promise<ToolOutput> {
  const { signal, limits, sink } = call
  signal.throwIfAborted()
  await sink.ready(signal)
  const timeoutMs = timeout_ms ?? (background ? undefined : limits.command_timeout_ms)
  const mayBeKept = background || pty
  const run = await call.state.commands.start({ command, pty, input: background, timeoutMs, mayBeKept }, call)
  const tell = (blobId?: string) => call.answerIfStopped?.(stoppedResult(run, blobId))
  const tellAtOnce = () => tell()
  signal.addEventListener('abort', tellAtOnce, { once: true })
  try {
    const end = background
      ? await firstEnd(run.ended, { timeoutMs: earlyLookMs, signal })
      : pty
        ? await endOrSilence(run, signal)
        : await firstEnd(run.ended, { signal })
    signal.throwIfAborted()
    if (typeof end === 'object') return await endOf(run, end, { call })
    // The default is for what nobody waits for; this one the model has in hand.
    if (timeout_ms === undefined) run.liftTimeLimit()
    call.state.commands.keep(run, call)
    return runningResult(run, background ? undefined : `No output for ${quietMs / 1_000} s: it may wait for input.`)
  } catch (error) {
    // Nobody knows its id, so nobody could end it.
    await run.stop(hastyGraceMs)
    tell()
    tell(await run.keepOutput())
    await call.state.commands.forget(run)
    throw error
  } finally {
    signal.removeEventListener('abort', tellAtOnce)
  }
}

async function endOrSilence(run: CommandRun, signal: AbortSignal) {
  for (;;) {
    const news = await run.nextNews(quietMs, signal)
    if (news === 'ended') return run.ended
    if (news === 'silence') return news
  }
}
