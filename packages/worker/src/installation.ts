import { createHash, randomUUID } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { writePrivateFile } from '@openoz/machine'

/**
 * The name that a state folder gives itself. Everything that is started for a task is marked with it (`OZ_WORKER_STATE`), so that a search through all
 * processes of the machine finds what nobody answers for, and nothing of another installation or of a person's own run.
 */
export const stateVariable = 'OZ_WORKER_STATE'

/**
 * A UUID, of what the folder keeps in `installation` (made when there is none) and of which folder it is: a copy of a state folder is another
 * installation, and must not take the original's tasks for its own. What only ever changes with a restart of the machine, like the number of a file
 * system, may change: no process of before is left then.
 */
export async function readInstallationId(stateDir: string): Promise<string> {
  const file = join(stateDir, 'installation')
  const read = () => readFile(file, 'utf8')
  const kept = await read().catch(async () => {
    // The first worker here. Two may start at the same moment: one makes it, both take it.
    await writePrivateFile(file, `${randomUUID()}\n`, { exclusive: true }).catch(() => {})
    return await read()
  })
  const { dev, ino } = await stat(stateDir, { bigint: true })
  const hash = createHash('sha256').update(`${kept.trim()} ${dev}:${ino}`).digest('hex')
  // Version 8 of RFC 9562: whatever its maker likes.
  return `${hash.slice(0, 8)}-${hash.slice(8, 12)}-8${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`
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
