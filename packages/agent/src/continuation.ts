import type { Continuation } from '@openoz/protocol'

/** What became of files that were changed after the workspace was last saved. */
export type LostFiles = 'none' | 'all' | 'maybe'

/** For people who read the run's log. */
export const lostFilesNotices = {
  all: 'The machine of the last execution is gone, and files that changed since the workspace was last saved are lost with it. The conversation is complete.',
  maybe:
    'The workspace was not saved when the last execution ended. If this is another machine, files that changed since it was last saved are lost. The conversation is complete.',
} as const satisfies Record<Exclude<LostFiles, 'none'>, string>

/** What differs from what the model remembers, by why it goes on elsewhere. */
const whatIsGone: Record<Continuation['reason'], (attempt: number) => string> = {
  retry: (attempt) =>
    `this is attempt ${attempt} of this run. The process of the attempt before is gone, with every process that it had started; what it had installed on its machine, and files outside of the workspace, may be gone too.`,
  follow_up: () =>
    'you go on in another process, and maybe on another machine. Processes that ran before are gone; what was installed, and files outside of the workspace, may be gone too.',
  conversation: () =>
    'this conversation goes on in a new run, on another machine. Processes that ran before are gone, and so are files outside of the workspace and what was installed.',
}

/** For the model. */
const whatIsLost: Record<LostFiles, string[]> = {
  none: [],
  all: [
    'Files that were changed after the workspace was last saved are lost with their machine: you remember work that is not on this disk. Look at the files before you rely on it, and do again what is missing.',
  ],
  maybe: [
    'Files that were changed after the workspace was last saved may be lost: you may remember work that is not on this disk. Look at the files before you rely on it, and do again what is missing.',
  ],
}

/** What the model is told before its next answer. `restored` has a sentence for each part of the workspace. */
export function continuationNote({
  reason,
  attempt,
  lost,
  restored,
}: {
  reason: Continuation['reason']
  attempt: number
  lost: LostFiles
  restored: string[]
}): string {
  const about = `Note from openoz: ${whatIsGone[reason](attempt)} Setup commands have been run again.`
  const workspace = restored.length > 0 ? ['The workspace:', ...restored] : []
  return [about, ...workspace, ...whatIsLost[lost]].join('\n')
}

/** For the model, in a folder that belongs to a person: nothing is put back there, whatever was saved of the conversation's work elsewhere. */
export function localContinuationNote(folder: string): string {
  return (
    `Note from openoz: this conversation goes on in a new run, in the folder ${folder}. Nothing was put back there: work that you remember may not ` +
    'be in it. Look at the files before you rely on them. Processes that ran before are gone.'
  )
}
