import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createEventPost, type Dialer, drainSpool, openSpool } from '@openoz/machine'
import type { Logger } from 'pino'
import { savedWorkName } from './task-folder.ts'

/** `kept`: the control plane could not be reached in time; a later sweep tries again. */
type DeliveryResult = 'nothing' | 'delivered' | 'refused' | 'kept'

/**
 * Sends what a dead agent had not sent. Call it when nothing of the task runs any more: the folder was the task's until now, so everything
 * in it that is no plain file of one name is removed first, else a link could make a worker that is root write somewhere else.
 */
export async function deliverSpool(options: {
  folder: string
  token: string | undefined
  dialer: Dialer
  log: Logger
  timeoutMs: number
  signal?: AbortSignal
}): Promise<DeliveryResult> {
  const { folder, token, dialer, log, timeoutMs, signal } = options
  const hasEvents = await clearTraps(folder)
  if (!hasEvents || token === undefined) return 'nothing'
  const limit = new AbortController()
  const stop = () => limit.abort()
  const timer = setTimeout(stop, timeoutMs)
  signal?.addEventListener('abort', stop, { once: true })
  try {
    if (signal?.aborted) stop()
    // The agent may have lived in a PID namespace of its own, where its pid meant something else.
    using spool = await openSpool(folder, { ownerIsGone: true })
    const post = createEventPost(dialer, () => token)
    const { kind } = await drainSpool({ spool, post, log, signal: limit.signal })
    return kind === 'drained' ? 'delivered' : kind === 'refused' ? 'refused' : 'kept'
  } catch (error) {
    log.warn({ error }, 'The events of an ended agent could not be read')
    return 'kept'
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', stop)
  }
}

/** Returns whether there are events at all. */
async function clearTraps(folder: string): Promise<boolean> {
  let hasEvents = false
  for (const name of await readdir(folder).catch(() => [])) {
    const path = join(folder, name)
    const stat = await lstat(path)
    // Kept with the task's folder, and looked into by nobody.
    if (name === savedWorkName && stat.isDirectory()) continue
    if (!stat.isFile() || stat.nlink !== 1) await rm(path, { recursive: true, force: true })
    else if (/^events-\d+\.jsonl$/.test(name) && stat.size > 0) hasEvents = true
  }
  return hasEvents
}
