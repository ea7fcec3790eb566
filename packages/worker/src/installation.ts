import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writePrivateFile } from '@openoz/machine'

/**
 * The name that a state folder gives itself. Everything that is started for a task is marked with it (`OZ_WORKER_STATE`), so that a search through all
 * processes of the machine finds what nobody answers for, and nothing of another installation or of a person's own run.
 */
export const stateVariable = 'OZ_WORKER_STATE'

/** Makes it when there is none. */
export async function readInstallationId(stateDir: string): Promise<string> {
  const file = join(stateDir, 'installation')
  const read = async () => (await readFile(file, 'utf8')).trim()
  try {
    const id = await read()
    if (id !== '') return id
  } catch {
    // The first worker here.
  }
  // Two workers may start at the same moment: one makes it, both take it.
  await writePrivateFile(file, `${randomUUID()}\n`, { exclusive: true }).catch(() => {})
  return await read()
}

/**
 * The value of the mark. It names the task as well: what a task's own tools start as runs of their own (`oz agent run` in a tool) has another
 * `OZ_EXECUTION_ID`, and still belongs to this task.
 */
export function stateMark(installationId: string, executionId: string): string {
  return `${installationId}/${executionId}`
}

/** The two marks of everything that is started for a task. */
export function markedWith(installationId: string, executionId: string): Record<string, string> {
  return { OZ_EXECUTION_ID: executionId, [stateVariable]: stateMark(installationId, executionId) }
}

/** As a search for processes takes them. */
export function marksOf(installationId: string, executionId: string): string[] {
  return Object.entries(markedWith(installationId, executionId)).map(([name, value]) => `${name}=${value}`)
}
