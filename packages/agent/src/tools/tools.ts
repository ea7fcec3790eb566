import { editFiles } from './edit-files.ts'
import { runCommand } from './run-command.ts'
import type { Tool } from './tool.ts'

/** What the built-in harness offers to its model. A tool's own `run` gets what its own `input` has parsed. */
export const builtInTools: readonly Tool[] = [runCommand as Tool, editFiles as Tool]
