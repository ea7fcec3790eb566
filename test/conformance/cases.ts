import type { BackendName } from '../../packages/worker/src/backends/backend.ts'

/**
 * What every backend has to do, each as a sentence: the names of the tests that `describeBackend` makes of them for each backend, and the rows of the table
 * in `docs/backends.md` (`npx node scripts/generate-docs.ts`).
 */
export interface ConformanceCase {
  name: string
  /** The backends that cannot, each with why: it stands in the table. */
  without?: Partial<Record<BackendName, string>>
}

export const conformanceCases = {
  wholeRun: {
    name: 'a run goes from its first state to its last, its log has what the agent’s commands wrote, and nothing is left of it',
  },
  exitCode: { name: 'the exit code of an agent is told, with its last words' },
  signal: { name: 'an agent that ended by a signal is told by the signal’s number' },
  killedIsNoMemory: { name: 'an agent that somebody killed is not called out of memory' },
  outOfMemory: { name: 'an agent that the kernel ended for memory is told as that' },
  memoryLimit: {
    name: 'an agent that takes more memory than its run was given is ended alone, and the limit is named',
    without: { direct: 'no: tasks share the machine’s memory' },
  },
  largeOutput: { name: 'an agent that writes 25 MB is not held up, and its last words are the last' },
  largeCommandOutput: { name: 'a command of an agent that writes 25 MB comes to its end, and so does the run' },
  politeStop: { name: 'an agent that is asked to end may clean up' },
  deafStop: { name: 'an agent that ignores SIGTERM is killed when its time is over, with all that it has started' },
  stopDuringStart: { name: 'a stop while a task is being started leaves nothing' },
  leftRunning: { name: 'what an agent has left running is gone before its end is told' },
  cancelCommand: { name: 'a run whose command ignores every signal that it can is cancelled within 3 s' },
  cancelAgent: { name: 'a run whose agent ignores SIGTERM is cancelled within 3 s' },
  workerStopped: { name: 'a worker that is stopped ends its tasks, and the next one does their runs again' },
  adoptRunning: { name: 'the next worker takes over an agent at work, and tells its end' },
  adoptEnded: { name: 'the end of an agent while no worker was there is told by the next' },
  adoptWithoutHole: {
    name: 'a run’s log has every line that was written while its worker was away, once and in order',
  },
  sweep: { name: 'a sweep removes what no task answers for, and nothing of a task at work' },
  tasksApart: { name: 'a task sees neither processes nor files of another' },
  environment: { name: 'a command sees the variables of its task, and none of its worker’s: no key, no token' },
  liveFollowUp: { name: 'a follow-up goes on in the agent that waits, with the processes that it has started' },
  resumed: { name: 'a follow-up after the agent’s end goes on in a new one, with its files and what was said' },
  killedAgent: { name: 'the run of a killed agent is tried again, with the files that it had not saved' },
} as const satisfies Record<string, ConformanceCase>

export type CaseId = keyof typeof conformanceCases
