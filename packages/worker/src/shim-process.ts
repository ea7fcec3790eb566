import { spawn } from 'node:child_process'
import { type FSWatcher, watch } from 'node:fs'
import { open } from 'node:fs/promises'
import { constants } from 'node:os'
import { findProcesses, identifyProcess, isSameProcess, type ProcessIdentity, type ProcessInfo } from '@openoz/machine'
import type { TaskExit } from './backends/backend.ts'
import { markedWith } from './installation.ts'
import { systemPath } from './isolation.ts'
import { shim } from './shell-text.ts'
import { readExitCode, type TaskFolder } from './task-folder.ts'

/**
 * Starts the shim, in a session of its own and with its output in a file, and forgets that it is our child: from then on it is known by pid
 * and start time, and its end by the file `exit`, exactly as for a worker process that did not start it.
 */
export async function startShim(options: {
  paths: TaskFolder
  command: string[]
  workspace: string
  executionId: string
  installationId: string
  /** The user that the task has to itself. */
  uid: number | undefined
}): Promise<ProcessIdentity> {
  const { paths, command, workspace, executionId, installationId, uid } = options
  const log = await open(paths.log, 'a', 0o600)
  try {
    const child = spawn('/bin/sh', ['-c', shim, 'oz-shim', paths.folder, String(uid ?? ''), ...command], {
      cwd: workspace,
      // Not the task's variables: programs run as root before the task's own user takes over. The marks are what a sweep looks for.
      env: { PATH: systemPath, ...markedWith(installationId, executionId) },
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', reject)
    })
    child.unref()
    const identity = child.pid === undefined ? undefined : identifyProcess(child.pid)
    // A shim that has ended already has left its exit file; any identity that matches nothing will do.
    return identity ?? { pid: child.pid ?? 0, startedAt: 'ended' }
  } finally {
    await log.close()
  }
}

/** Waits for the exit file, or for the shim to be gone without one. Rejects with the signal's reason. */
export async function waitForExit(
  paths: TaskFolder,
  shimProcess: ProcessIdentity,
  signal?: AbortSignal,
): Promise<TaskExit> {
  // Watching begins before the first look, so that nothing happens in between.
  using changes = watchFolder(paths.folder)
  for (;;) {
    signal?.throwIfAborted()
    // First the process, then the file: the shim writes before it ends.
    const isRunning = isSameProcess(shimProcess)
    const code = await readExitCode(paths)
    if (code !== undefined) return toExit(code)
    if (!isRunning) return { type: 'vanished' }
    await changes.next(signal)
  }
}

/** The file system tells at once; the timer is for those that do not tell, and for a shim that was killed. */
function watchFolder(folder: string): Disposable & { next(signal?: AbortSignal): Promise<void> } {
  const waiting = { wake: () => {}, hasChanged: false }
  let watcher: FSWatcher | undefined
  try {
    watcher = watch(folder, (_event, name) => {
      if (name !== null && name !== 'exit') return
      waiting.hasChanged = true
      waiting.wake()
    })
    watcher.on('error', () => {})
  } catch {
    // Out of watches: the timer is enough.
  }
  return {
    next: (signal) =>
      new Promise((resolve) => {
        const done = () => {
          clearTimeout(timer)
          signal?.removeEventListener('abort', done)
          waiting.wake = () => {}
          waiting.hasChanged = false
          resolve()
        }
        const timer = setTimeout(done, 250)
        signal?.addEventListener('abort', done, { once: true })
        waiting.wake = done
        if (waiting.hasChanged || signal?.aborted) done()
      }),
    [Symbol.dispose]: () => watcher?.close(),
  }
}

function toExit(code: number | 'unknown'): TaskExit {
  return code === 'unknown' ? { type: 'vanished' } : exitOfCode(code)
}

/** As shells, and the init of a container, tell it: a code above 128 is a signal’s. */
export function exitOfCode(code: number): TaskExit {
  const signal = code - 128
  const isSignal = signal > 0 && Object.values(constants.signals).some((number) => number === signal)
  return isSignal ? { type: 'killed', signal } : { type: 'exited', code }
}

/** SIGTERM to the agent alone, not to its tools: it ends those itself. `depth` is how far below the shim it runs. */
export async function askToEnd(shimProcess: ProcessIdentity, depth: number): Promise<void> {
  const tree = await findProcesses({ root: shimProcess })
  let level: ProcessInfo[] = tree.filter(({ pid }) => pid === shimProcess.pid)
  for (let step = 0; step < depth; step++) {
    const parents = new Set(level.map(({ pid }) => pid))
    level = tree.filter(({ ppid }) => parents.has(ppid))
  }
  for (const info of level) {
    try {
      if (isSameProcess(info)) process.kill(info.pid, 'SIGTERM')
    } catch {
      // It ended in between.
    }
  }
}
