import { z } from 'zod'
import { resultOf, waitForOutput } from './command-result.ts'
import { maxWaitMs } from './read-command.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

const defaultWaitMs = 2_000

const input = z.object({
  command_id: z.string().min(1).max(100),
  input: z.string().max(100_000).describe('Sent as it is; nothing is added.'),
  close: z.boolean().optional().describe('End the input after that.'),
  wait_ms: z.int().min(0).max(maxWaitMs).optional().describe(`Default ${defaultWaitMs}.`),
})
type Input = z.infer<typeof input>

export const writeToCommand: Tool<Input> = {
  name: 'write_to_command',
  kind: 'execute',
  describe: () =>
    'Sends text to the stdin of a command that was started with background, or to the pseudo-terminal of one with pty, then waits up to wait_ms ' +
    '(until its answer has come) and returns what read_command does. A line needs its end: "\\n" for stdin; in a pty Enter is "\\r", Ctrl-C ' +
    '"\\u0003", Ctrl-D "\\u0004", Escape "\\u001b", arrows "\\u001b[A" to "\\u001b[D" (up, down, right, left). close: true ends the input, for ' +
    'programs that read until its end (in a pty it is Ctrl-D).',
  input,
  title: ({ command_id, input: text }) => `Write to ${command_id}: ${shown(text)}`,
  run: write,
}

async function write(
  { command_id, input: text, close = false, wait_ms = defaultWaitMs }: Input,
  call: ToolCall,
): Promise<ToolOutput> {
  call.signal.throwIfAborted()
  const run = call.state.commands.find(command_id)
  // What came before is no answer to this, but a command that has ended takes no input, and its end says more than an error.
  if (!run.end) {
    if (text !== '') run.write(text)
    if (close) run.closeInput()
    await waitForOutput(run, wait_ms, call.signal)
  }
  return resultOf(run, call)
}

function shown(text: string): string {
  const quoted = JSON.stringify(text)
  return quoted.length > 80 ? `${quoted.slice(0, 80)}…` : quoted
}
