import { createFilesSeen, type FilesSeen } from './files-seen.ts'
import { createRunningCommands, type RunningCommands } from './running-commands.ts'

/** What tools of one session share, and what must end with it. */
export interface ToolState {
  commands: RunningCommands
  files: FilesSeen
}

export function createToolState(): ToolState {
  return { commands: createRunningCommands(), files: createFilesSeen() }
}
