import { z } from 'zod'
import { firstEnd } from '../child-end.ts'
import { resultOf } from './command-result.ts'
import { politeGraceMs } from './command-run.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

const input = z.object({ command_id: z.string().min(1).max(100) })
type Input = z.infer<typeof input>

export const stopCommand: Tool<Input> = {
  name: 'stop_command',
  kind: 'execute',
  describe: () =>
    `Ends a running command with everything that it started: SIGTERM, and SIGKILL after ${politeGraceMs / 1_000} s. Returns its last output ` +
    'and exit code as read_command does.',
  input,
  title: ({ command_id }) => `Stop ${command_id}`,
  run: stop,
}

async function stop({ command_id }: Input, call: ToolCall): Promise<ToolOutput> {
  call.signal.throwIfAborted()
  const run = call.state.commands.find(command_id)
  // Goes on when this call is stopped: the command was to end, and its end can be read later.
  await firstEnd(run.stop(politeGraceMs), { signal: call.signal })
  call.signal.throwIfAborted()
  return resultOf(run, call)
}
