import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createMasker } from '@openoz/machine'
import type { Tool, ToolCall, ToolOutput } from '../../packages/agent/src/tools/tool.ts'
import { createToolState } from '../../packages/agent/src/tools/tool-state.ts'
import { testLimits } from './agent-channel-server.ts'
import { createRecordingSink } from './recording-sink.ts'

/** A workspace of real files in which tools are called as the harness calls them: arguments through the tool's own schema. */
export function makeToolWorkspace({ secrets = [] as string[] } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'oz-tools-'))
  // Also for tests that give up root's rights for a moment.
  chmodSync(folder, 0o755)
  const toolsFolder = join(folder, 'repo')
  mkdirSync(toolsFolder)
  const sink = createRecordingSink()
  const context = {
    id: 'call-1',
    workspace: { folder, toolsFolder, repositories: [] },
    env: { PATH: process.env.PATH, HOME: folder },
    limits: testLimits,
    sink,
    masker: createMasker(secrets),
    keepOutput: async (file: string): Promise<string | undefined> => {
      copyFileSync(file, join(folder, 'kept'))
      return 'blob-1'
    },
    state: createToolState({ root: folder }),
    signal: new AbortController().signal,
  } satisfies ToolCall
  return {
    folder,
    toolsFolder,
    sink,
    context,
    write(name: string, text: string | Buffer): void {
      const path = join(toolsFolder, name)
      mkdirSync(dirname(path), { recursive: true })
      writeFileSync(path, text)
    },
    read: (name: string) => readFileSync(join(toolsFolder, name), 'utf8'),
    /** Rejects with the schema's own words where the arguments do not fit. */
    call: async <Input>(tool: Tool<Input>, input: unknown, options: Partial<ToolCall> = {}): Promise<ToolOutput> =>
      tool.run(tool.input.parse(input), { ...context, ...options }),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** What root may do says nothing about permissions, so this is done as somebody else. */
export async function asNobody<T>(act: () => Promise<T>): Promise<T> {
  if (process.geteuid?.() !== 0) return act()
  process.seteuid?.(65_534)
  try {
    return await act()
  } finally {
    process.seteuid?.(0)
  }
}
