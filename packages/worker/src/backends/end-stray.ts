import type { Logger } from 'pino'
import { backendOf, lockTask, readRecord, type TaskRecord, taskFolder } from '../task-folder.ts'

interface StrayHost {
  readonly backend: string
  held: { has(executionId: string): boolean }
  stateDir: string
  log: Logger
}

/**
 * Ends a task that nobody answers for: by `end`, which gets its record where there is one. False without it for what is another backend's, or a live
 * worker's. Never rejects: what fails is logged, and false.
 */
export async function endStrayTask(
  { backend, held, stateDir, log }: StrayHost,
  executionId: string,
  end: (record: TaskRecord | undefined) => Promise<boolean>,
): Promise<boolean> {
  const paths = taskFolder(stateDir, executionId)
  try {
    const record = await readRecord(paths)
    if (record && backendOf(record) !== backend) return false
    if (record && !held.has(executionId)) {
      const lock = lockTask(paths)
      if (!lock) return false
      lock.release()
    }
    return await end(record)
  } catch (error) {
    log.error({ error, executionId }, 'A task could not be ended')
    return false
  }
}
