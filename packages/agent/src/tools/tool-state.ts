import { createFilesSeen, type FilesSeen, type SeenFile } from './files-seen.ts'
import { createRunningCommands, type RunningCommands } from './running-commands.ts'

/** What tools of one session share, and what must end with it. */
export interface ToolState {
  commands: RunningCommands
  files: FilesSeen
}

/** `root`: the real path of the workspace. `filesSeen`: by an earlier session of the conversation. */
export function createToolState({ root, filesSeen }: { root: string; filesSeen?: readonly SeenFile[] }): ToolState {
  return { commands: createRunningCommands(), files: createFilesSeen(root, filesSeen) }
}
