import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import {
  createEventPost,
  type Dialer,
  drainSpool,
  isSpoolFileName,
  maxSegmentBytes,
  openSpool,
  type Spool,
} from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import type { Logger } from 'pino'
import { removeTree } from './folder-removal.ts'
import { savedWorkName, spooledWorkName } from './task-folder.ts'

/**
 * `kept`: the control plane could not be reached in time; a later sweep tries again. `unreadable`: nobody will ever be able to send it, which
 * the log says.
 */
type DeliveryResult = 'nothing' | 'delivered' | 'refused' | 'unreadable' | 'kept'

/** Four times what an agent keeps by default. What is read of a spool, and how many files of it are open, must have an end. */
const maxSpoolBytes = 1024 * 1024 * 1024
const maxSegments = 256

/**
 * Sends what a dead agent had not sent. Call it when nothing of the task runs any more: the folder was the task's until now, so everything
 * in it that no spool would have written is removed first, else a link could make a worker that is root write somewhere else, and a file as large
 * as its disk take the worker's memory.
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
    using spool = await openLeft(folder)
    const post = createEventPost(dialer, () => token)
    const { kind } = await drainSpool({ spool, post, log, signal: limit.signal })
    if (kind === 'drained') await removeTree(join(folder, spooledWorkName))
    return kind === 'drained' ? 'delivered' : kind === 'refused' ? 'refused' : 'kept'
  } catch (error) {
    if (mayPass(error)) {
      log.warn({ error }, 'The events of an ended agent could not be read; tried again later')
      return 'kept'
    }
    log.error({ error }, 'The events of an ended agent cannot be read; they are given up')
    return 'unreadable'
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', stop)
  }
}

/** The agent may have lived in a PID namespace of its own, where its pid meant something else. */
function openLeft(folder: string): Promise<Spool> {
  return openSpool(folder, { ownerIsGone: true })
}

/** Whether it is the machine's state, not the spool, that keeps it from being read. */
function mayPass(error: unknown): boolean {
  if (error instanceof AppError) return error.code === 'spool_in_use'
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return ['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'ENOMEM'].includes(code)
}

/** Returns whether there are events at all. */
async function clearTraps(folder: string): Promise<boolean> {
  let bytes = 0
  let segments = 0
  // By name, so that of too many segments the oldest stay.
  for (const name of (await readdir(folder).catch(() => [])).sort()) {
    const path = join(folder, name)
    const stat = await lstat(path)
    // Kept with the task's folder, and looked into by nobody.
    if ((name === savedWorkName || name === spooledWorkName) && stat.isDirectory()) continue
    const isSegment = name.startsWith('events-')
    const fits = !isSegment || (bytes + stat.size <= maxSpoolBytes && segments < maxSegments)
    if (!isSpoolFileName(name) || !stat.isFile() || stat.nlink !== 1 || stat.size > maxSegmentBytes || !fits) {
      await removeTree(path)
    } else if (isSegment) {
      bytes += stat.size
      segments += 1
    }
  }
  return bytes > 0
}
