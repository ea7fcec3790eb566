import type { Continuation } from '@openoz/protocol'

/** For people who read the run's log. */
export const staleWorkspaceNotice =
  'The machine of the last execution is gone, and files that changed since the workspace was last saved are lost with it. The conversation is complete.'

/** What differs from what the model remembers, by why it goes on elsewhere. */
const whatIsGone: Record<Continuation['reason'], (attempt: number) => string> = {
  retry: (attempt) =>
    `this is attempt ${attempt} of this run. The process of the attempt before is gone, with every process that it had started; what it had installed on its machine, and files outside of the workspace, may be gone too.`,
  follow_up: () =>
    'you go on in another process, and maybe on another machine. Processes that ran before are gone; what was installed, and files outside of the workspace, may be gone too.',
  conversation: () =>
    'this conversation goes on in a new run, on another machine. Processes that ran before are gone, and so are files outside of the workspace and what was installed.',
}

const whatIsStale =
  'Files that were changed after the workspace was last saved are lost with their machine: you remember work that is not on this disk. Look at the files before you rely on it, and do again what is missing.'

/** What the model is told before its next answer. `restored` has a sentence for each part of the workspace. */
export function continuationNote({
  reason,
  attempt,
  isStale,
  restored,
}: {
  reason: Continuation['reason']
  attempt: number
  isStale: boolean
  restored: string[]
}): string {
  const about = `Note from openoz: ${whatIsGone[reason](attempt)} Setup commands have been run again.`
  const workspace = restored.length > 0 ? ['The workspace:', ...restored] : []
  return [about, ...workspace, ...(isStale ? [whatIsStale] : [])].join('\n')
}
