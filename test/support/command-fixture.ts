import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMasker, endProcessTree, findProcesses } from '@openoz/machine'
import type { Tool, ToolCall } from '../../packages/agent/src/tools/tool.ts'
import { createToolState } from '../../packages/agent/src/tools/tool-state.ts'
import { testLimits } from './agent-channel-server.ts'
import { createRecordingSink } from './recording-sink.ts'

export type CommandFixture = ReturnType<typeof createCommandFixture>

/** A session's tools for commands, without a session: real processes in a folder of their own. `hunter2` is a secret. */
export function createCommandFixture({ limits = {} }: { limits?: Partial<typeof testLimits> } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'oz-run-'))
  mkdirSync(join(folder, 'work'))
  const sink = createRecordingSink()
  const state = createToolState({ root: folder })
  const execution = crypto.randomUUID()
  const marker = `OZ_EXECUTION_ID=${execution}`
  let calls = 0

  return {
    folder,
    sink,
    commands: state.commands,
    /** Where a whole output is kept. */
    keptFile: join(folder, 'kept'),
    processes: () => findProcesses({ marker }),
    call<Input>(tool: Tool<Input>, input: Input, signal = new AbortController().signal) {
      const call: ToolCall = {
        id: `call-${++calls}`,
        workspace: { folder, toolsFolder: join(folder, 'work'), repositories: [] },
        env: { PATH: process.env.PATH, HOME: folder, OZ_EXECUTION_ID: execution, UNSET: undefined },
        limits: { ...testLimits, ...limits },
        sink,
        masker: createMasker(['hunter2']),
        keepOutput: async (file) => {
          copyFileSync(file, join(folder, 'kept'))
          return 'blob-1'
        },
        state,
        signal,
      }
      return tool.run(input, call)
    },
    async [Symbol.asyncDispose]() {
      await state.commands.endAll()
      await endProcessTree({ marker }, 0)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
