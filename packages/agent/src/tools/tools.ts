import type { AgentLimits } from '@openoz/protocol'
import { ask } from './ask.ts'
import { editFiles } from './edit-files.ts'
import { fileGlob } from './file-glob.ts'
import { grep } from './grep.ts'
import { readCommand } from './read-command.ts'
import { readFiles } from './read-files.ts'
import { reportArtifact } from './report-artifact.ts'
import { runCommand } from './run-command.ts'
import { stopCommand } from './stop-command.ts'
import { todo } from './todo.ts'
import type { Tool } from './tool.ts'
import { webFetch } from './web-fetch.ts'
import { writeToCommand } from './write-to-command.ts'

/** What the built-in harness offers to its model. A tool's own `run` gets what its own `input` has parsed. */
export const builtInTools: readonly Tool[] = [
  runCommand as Tool,
  readCommand as Tool,
  writeToCommand as Tool,
  stopCommand as Tool,
  readFiles as Tool,
  editFiles as Tool,
  grep as Tool,
  fileGlob as Tool,
  todo as Tool,
  webFetch as Tool,
  ask as Tool,
  reportArtifact as Tool,
]

/** Without those that this run must not use. The same for every request of a session: models' caches depend on it. */
export function toolsFor({ limits }: { limits: AgentLimits }): readonly Tool[] {
  return limits.web_fetch ? builtInTools : builtInTools.filter(({ name }) => name !== webFetch.name)
}
