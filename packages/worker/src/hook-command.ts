import { spawn } from 'node:child_process'
import { open } from 'node:fs/promises'
import { endProcessTree } from '@openoz/machine'
import { markedWith, marksOf } from './installation.ts'
import { systemPath } from './isolation.ts'
import { readTail } from './task-folder.ts'

interface HookRun {
  /** Wrapped and ready to start. */
  command: string[]
  workspace: string
  executionId: string
  installationId: string
  logFile: string
  timeoutMs: number
  signal?: AbortSignal
}

export interface HookResult {
  /** undefined when it succeeded. */
  problem?: string
  exitCode?: number
  /** The last lines that it wrote. */
  output: string
}

/** Enough for the last words of a compiler, and little enough for a step of the waterfall. */
const tailBytes = 8 * 1024

/**
 * Runs one of the operator's commands (setup, teardown) to its end, and ends what it left running. Output goes to the task's log file.
 * Rejects only with the signal's reason.
 */
export async function runHook({
  command,
  workspace,
  executionId,
  installationId,
  logFile,
  timeoutMs,
  signal,
}: HookRun): Promise<HookResult> {
  signal?.throwIfAborted()
  const log = await open(logFile, 'a', 0o600)
  const [file = '', ...args] = command
  const before = (await log.stat()).size
  let rootPid: number | undefined
  const limit = new AbortController()
  const timer = setTimeout(() => limit.abort(), timeoutMs)
  const onAbort = () => limit.abort()
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const child = spawn(file, args, {
      cwd: workspace,
      env: { PATH: systemPath, ...markedWith(installationId, executionId) },
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    rootPid = child.pid
    const ended = await new Promise<{ code: number | null; by: string | null } | 'limit'>((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', (code, by) => resolve({ code, by }))
      limit.signal.addEventListener('abort', () => resolve('limit'), { once: true })
    })
    signal?.throwIfAborted()
    const size = (await log.stat()).size - before
    const output = await readTail(logFile, Math.min(size, tailBytes))
    if (ended === 'limit') return { problem: `it did not end within ${Math.round(timeoutMs / 1000)} s`, output }
    if (ended.code === 0) return { output }
    if (ended.code === null) return { problem: `it was ended by ${ended.by}`, output }
    return { problem: `it ended with exit code ${ended.code}`, exitCode: ended.code, output }
  } catch (error) {
    if (signal?.aborted) throw signal.reason
    return { problem: error instanceof Error ? error.message : 'it could not be started', output: '' }
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
    await endProcessTree({ marker: marksOf(installationId, executionId), rootPid }, 0)
    await log.close()
  }
}
