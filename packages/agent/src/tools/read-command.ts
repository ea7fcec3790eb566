import { z } from 'zod'
import { resultOf, waitForOutput } from './command-result.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

/** The longest that one call waits: a turn that only waits should say so now and then. */
export const maxWaitMs = 60_000
const defaultWaitMs = 1_000

const input = z.object({
  command_id: z.string().min(1).max(100),
  wait_ms: z.int().min(0).max(maxWaitMs).optional().describe(`Default ${defaultWaitMs}.`),
})
type Input = z.infer<typeof input>

export const readCommand: Tool<Input> = {
  name: 'read_command',
  kind: 'execute',
  describe: () =>
    'Returns the output of a running command since it was last read (the middle of a long one is left out): {status: "running", command_id, ' +
    'output}, or, once it has ended, {status: "complete", command_id, exit_code, output}; after that its id is gone. Without new output it ' +
    `waits for some, or for the end, up to wait_ms (at most ${maxWaitMs}). Wait rather than read again and again.`,
  input,
  title: ({ command_id }) => `Read ${command_id}`,
  run: read,
}

async function read({ command_id, wait_ms = defaultWaitMs }: Input, call: ToolCall): Promise<ToolOutput> {
  call.signal.throwIfAborted()
  const run = call.state.commands.find(command_id)
  if (!run.hasNewOutput) await waitForOutput(run, wait_ms, call.signal)
  return resultOf(run, call)
}
