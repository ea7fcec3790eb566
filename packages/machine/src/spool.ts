import { closeSync, mkdirSync, readdirSync } from 'node:fs'
import { AppError, maxBatchBytes, type NumberedEvent } from '@openoz/protocol'
import { isDiskFull, noSpace } from './disk-full.ts'
import { type FolderLock, isLockName, lockFolder } from './folder-lock.ts'
import { ackedTemporary, readAcked, writeAcked } from './spool-acked.ts'
import {
  fitsReserve,
  hasRoomAgain,
  isReserveTight,
  makeReserve,
  reserveName,
  returnReserve,
  takeReserve,
} from './spool-reserve.ts'
import {
  appendLines,
  bytesAfter,
  createSegment,
  endOf,
  lastOf,
  openSegment,
  readLines,
  removeSegment,
  type Segment,
  segmentFirst,
} from './spool-segment.ts'

/**
 * The agent's events between "it happened" and "the control plane has it": numbered, on disk, in a folder that the worker owns. The agent
 * appends and sends; when it dies, the worker opens the folder and sends the rest. One process at a time (`spool_in_use`).
 *
 * What `append` returned survives the death of the process by any signal: it is with the kernel. It is not synced to the disk, so a power
 * cut can lose the last moments; the control plane then still knows their numbers, and `acknowledge` moves the numbering past them.
 *
 * In the folder: `events-N.jsonl` (segments; whole ones are deleted once acknowledged), `acked` (the last acknowledged number), `lock-N`,
 * and `reserve` (see `spool-reserve.ts`) where it was asked for.
 * Files are written with synchronous calls: they go to the page cache in microseconds, and an event must not be overtaken by the next.
 */
export interface SpoolOptions {
  /** `isFull` from this many unacknowledged bytes on. */
  maxBytes?: number
  /** A segment that has reached this size is followed by the next one. */
  limitSegmentBytes?: number
  /** The caller knows that a former owner in another PID namespace (a container) has ended. Never overrides an owner that can be seen. */
  ownerIsGone?: boolean
  /** Room of its own on the disk, so that events that are acknowledged soon, and an outcome, can be written when that is full. */
  keepsRoom?: boolean
}

/** An event without its number. `at` is now when absent. */
export interface UnnumberedEvent {
  type: string
  at?: string
  data: unknown
}

export interface PendingLimits {
  maxEvents?: number
  maxBytes?: number
}

/** Beyond `maxBytes`, for what must still be said when a spool is full: the outcome. */
const reserveBytes = 1024 * 1024
/** An event must fit into one batch, with some room for its frame. */
const maxEventBytes = maxBatchBytes - 64 * 1024
const defaultSegmentBytes = 4 * 1024 * 1024
/** The largest segment of a spool with the usual limits: the last event may cross the limit. */
export const maxSegmentBytes = defaultSegmentBytes + maxBatchBytes

/** Whether the spool gives files such names. What else lies in its folder is not its own. */
export function isSpoolFileName(name: string): boolean {
  return (
    segmentFirst(name) !== undefined ||
    name === 'acked' ||
    name === ackedTemporary ||
    name === reserveName ||
    isLockName(name)
  )
}

/** Makes the folder (0700) when it is missing. Rejects with `spool_in_use`. */
export async function openSpool(folder: string, options: SpoolOptions = {}): Promise<Spool> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const lock = lockFolder(folder, { ownerIsGone: options.ownerIsGone })
  if ('heldBy' in lock) throw new AppError('spool_in_use', { folder, pid: lock.heldBy })
  try {
    return new Spool(folder, lock, options)
  } catch (error) {
    lock.release()
    throw error
  }
}

export class Spool implements Disposable {
  readonly folder: string
  readonly maxBytes: number
  readonly #lock: FolderLock
  readonly #limitSegmentBytes: number
  /** Oldest first, without holes between them. */
  #segments: Segment[]
  #ackedN: number
  #lastN: number
  #sizeBytes: number
  #isClosed = false
  /** `none`: not asked for, or used up. A segment: it holds the newest events. */
  #reserve: 'none' | 'ready' | Segment = 'none'
  #changed = Promise.withResolvers<void>()

  /** Use `openSpool`, which takes the lock. */
  constructor(
    folder: string,
    lock: FolderLock,
    { maxBytes = 64 * 1024 * 1024, limitSegmentBytes, keepsRoom }: SpoolOptions,
  ) {
    this.folder = folder
    this.maxBytes = maxBytes
    this.#limitSegmentBytes = limitSegmentBytes ?? defaultSegmentBytes
    this.#lock = lock
    const names = readdirSync(folder).filter((name) => segmentFirst(name) !== undefined)
    names.sort((a, b) => (segmentFirst(a) ?? 0) - (segmentFirst(b) ?? 0))
    this.#segments = openSegments(folder, names, { maxBytes: this.#limitSegmentBytes + maxBatchBytes })
    const last = this.#segments.at(-1)
    // Only acknowledged segments are ever deleted, which still holds when a power cut took the `acked` file.
    this.#ackedN = Math.max(readAcked(folder), (this.#segments[0]?.first ?? 1) - 1)
    this.#lastN = Math.max(last ? lastOf(last) : 0, this.#ackedN)
    this.#sizeBytes = this.#segments.reduce((sum, segment) => sum + bytesAfter(segment, this.#ackedN), 0)
    this.#removeAcknowledged({ isPersisted: true })
    if (keepsRoom && makeReserve(folder)) this.#reserve = 'ready'
    // For the same reason: later it can be written over.
    if (keepsRoom) writeAcked(folder, this.#ackedN)
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** Number of the last event that was appended; 0 for none. */
  get lastN(): number {
    return this.#lastN
  }

  get ackedN(): number {
    return this.#ackedN
  }

  /** Bytes of the events that are not acknowledged. */
  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** Only what is acknowledged soon can still be written: the disk is full. Whoever can wait does. */
  get isTight(): boolean {
    return typeof this.#reserve === 'object' && isReserveTight(this.#reserve)
  }

  get isFull(): boolean {
    return this.#sizeBytes >= this.maxBytes
  }

  /**
   * Numbers the events, writes them, and returns the number of the last one. All of them or none. A batch may cross `maxBytes`; the next
   * one throws `spool_full`, unless it `isFinal` (an outcome, a last checkpoint), for which another MiB is kept. Throws `disk_full`. An event
   * that would not fit into a batch is kept as `event_invalid`.
   */
  append(events: readonly UnnumberedEvent[], { isFinal = false }: { isFinal?: boolean } = {}): number {
    this.#refuseClosed()
    if (events.length === 0) return this.#lastN
    if (this.#sizeBytes >= this.maxBytes + (isFinal ? reserveBytes : 0)) {
      throw new AppError('spool_full', { folder: this.folder, maxBytes: this.maxBytes })
    }
    const now = new Date().toISOString()
    const lines = events.map(({ type, at = now, data }, i) => toLine({ n: this.#lastN + 1 + i, type, at, data }))
    try {
      this.#write(lines, { isFinal })
    } catch (cause) {
      if (!isDiskFull(cause)) throw cause
      throw new AppError(
        'disk_full',
        { what: 'the events of the run', folder: this.folder, free: 'nothing' },
        { cause },
      )
    }
    this.#lastN += lines.length
    this.#announce()
    return this.#lastN
  }

  /** Events after `afterN`, in order and without holes, at least one when there is one. Begins later where acknowledged ones are gone. */
  pending(
    afterN: number,
    { maxEvents = 100, maxBytes = Number.POSITIVE_INFINITY }: PendingLimits = {},
  ): NumberedEvent[] {
    this.#refuseClosed()
    const found: NumberedEvent[] = []
    let left = maxBytes
    let next = afterN + 1
    for (const segment of this.#segments) {
      if (lastOf(segment) < next) continue
      next = Math.max(next, segment.first)
      const lines = readLines(segment, next, { maxEvents: maxEvents - found.length, maxBytes: left })
      for (const line of lines) {
        const bytes = Buffer.byteLength(line) + 1
        if (found.length > 0 && bytes > left) return found
        left -= bytes
        found.push(fromLine(line, next))
        next++
      }
      if (found.length >= maxEvents || next <= lastOf(segment)) return found
    }
    return found
  }

  /**
   * Everything up to `n` is stored elsewhere for good. A number beyond `lastN` means that the other side knows events which a power cut
   * took from this disk: the next event is numbered after it. A lower number than before is ignored.
   */
  acknowledge(n: number): void {
    this.#refuseClosed()
    if (n <= this.#ackedN) return
    const isPersisted = writeAcked(this.folder, n)
    const acknowledged = (segment: Segment) => bytesAfter(segment, this.#ackedN) - bytesAfter(segment, n)
    this.#sizeBytes -= this.#segments.reduce((sum, segment) => sum + acknowledged(segment), 0)
    this.#ackedN = n
    this.#lastN = Math.max(this.#lastN, n)
    this.#removeAcknowledged({ isPersisted })
    this.#announce()
  }

  /** Resolves when the spool is not full: what produces events waits here. Rejects with the signal's reason. */
  async waitForRoom(signal?: AbortSignal): Promise<void> {
    while (this.isFull) await this.#change(signal)
  }

  /** Resolves when there are events after `afterN`. Rejects with the signal's reason. */
  async waitForEvents(afterN: number, signal?: AbortSignal): Promise<void> {
    while (this.#lastN <= afterN) await this.#change(signal)
  }

  /** Resolves when everything up to `n` is acknowledged. Rejects with the signal's reason. */
  async waitForAcknowledged(n: number, signal?: AbortSignal): Promise<void> {
    while (this.#ackedN < n) await this.#change(signal)
  }

  /** Gives the folder free. Whoever waits is rejected. May be called twice. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const { descriptor } of this.#segments) closeSync(descriptor)
    this.#lock.release()
    this.#announce()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #write(lines: string[], { isFinal }: { isFinal: boolean }): void {
    const bytes = lines.reduce((sum, line) => sum + Buffer.byteLength(line) + 1, 0)
    const fits = (segment: Segment) => fitsReserve(segment, bytes, { isFinal })
    if (typeof this.#reserve === 'object') {
      // Not away from it for the few blocks that somebody gives back: the next event would have no place then.
      if (!fits(this.#reserve) && !hasRoomAgain(this.folder)) throw noSpace()
      appendLines(fits(this.#reserve) ? this.#reserve : this.#leaveReserve(), lines)
    } else {
      try {
        appendLines(this.#segmentForAppend(), lines)
      } catch (error) {
        if (!isDiskFull(error) || this.#reserve !== 'ready') throw error
        const last = this.#segments.at(-1)
        if (last && lastOf(last) < last.first) this.#remove(last)
        const reserve = takeReserve(this.folder, this.#lastN + 1)
        this.#segments.push(reserve)
        this.#reserve = reserve
        if (!fits(reserve)) throw error
        appendLines(reserve, lines)
      }
    }
    this.#sizeBytes += bytes
  }

  /** It is freed like every other segment, and another one made when there is room. */
  #leaveReserve(): Segment {
    const next = createSegment(this.folder, this.#lastN + 1)
    this.#segments.push(next)
    this.#reserve = makeReserve(this.folder) ? 'ready' : 'none'
    return next
  }

  #remove(segment: Segment): void {
    removeSegment(segment)
    this.#segments = this.#segments.filter((other) => other !== segment)
  }

  #segmentForAppend(): Segment {
    const last = this.#segments.at(-1)
    if (last && endOf(last) < this.#limitSegmentBytes && lastOf(last) === this.#lastN) return last
    const next = createSegment(this.folder, this.#lastN + 1)
    this.#segments.push(next)
    return next
  }

  #removeAcknowledged({ isPersisted }: { isPersisted: boolean }): void {
    const isDone = (segment: Segment) => lastOf(segment) <= this.#ackedN
    for (const segment of this.#segments.filter(isDone)) {
      if (segment === this.#reserve) {
        if (!isPersisted) continue
        this.#segments = this.#segments.filter((other) => other !== segment)
        this.#reserve = returnReserve(this.folder, segment) || makeReserve(this.folder) ? 'ready' : 'none'
        continue
      }
      const isLast = segment === this.#segments.at(-1)
      const takesMore = endOf(segment) < this.#limitSegmentBytes / 4 && lastOf(segment) === this.#lastN
      // Without the `acked` file the last segment is all that remembers how far the numbers went.
      if (isLast && (takesMore || !isPersisted)) continue
      this.#remove(segment)
    }
  }

  #announce(): void {
    const { resolve } = this.#changed
    this.#changed = Promise.withResolvers()
    resolve()
  }

  async #change(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted()
    this.#refuseClosed()
    const { promise } = this.#changed
    const aborted = Promise.withResolvers<never>()
    const onAbort = () => aborted.reject(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      await Promise.race([promise, aborted.promise])
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
    this.#refuseClosed()
  }

  #refuseClosed(): void {
    if (this.#isClosed) throw new Error(`The spool ${this.folder} is closed.`)
  }
}

/** JSON writes NUL and lone surrogates as escapes, so the file is plain UTF-8 and gives back exactly what was put in. */
function toLine(event: { n: number; type: string; at: string; data: unknown }): string {
  const line = JSON.stringify(event)
  if (Buffer.byteLength(line) <= maxEventBytes) return line
  const reason = `It has ${Buffer.byteLength(line)} bytes; ${maxEventBytes} is the limit.`
  return JSON.stringify({ ...event, type: 'event_invalid', data: { original_type: event.type, reason } })
}

/** A line that the disk has spoiled keeps its number: a hole would stop everything after it. */
function fromLine(line: string, n: number): NumberedEvent {
  try {
    return { ...(JSON.parse(line) as NumberedEvent), n }
  } catch {
    return invalidEvent(n, 'It could not be read from the spool.')
  }
}

/** Stands for an event that is not there any more. */
export function invalidEvent(n: number, reason: string): NumberedEvent {
  return { n, type: 'event_invalid', at: new Date().toISOString(), data: { original_type: 'unknown', reason } }
}

/** All or none. */
function openSegments(folder: string, names: string[], { maxBytes }: { maxBytes: number }): Segment[] {
  const opened: Segment[] = []
  try {
    for (const name of names) opened.push(openSegment(folder, name, { isLast: name === names.at(-1), maxBytes }))
    return opened
  } catch (error) {
    for (const { descriptor } of opened) closeSync(descriptor)
    throw error
  }
}
