import { closeSync, constants, fstatSync, openSync, renameSync, statfsSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { openPlainFile } from './plain-file.ts'
import { endOf, type Segment, segmentName } from './spool-segment.ts'

/**
 * Room on the disk that a spool has for itself: the file `reserve`, of zeros that are really there (a file system that compresses or copies on write
 * promises less). When the disk is full it becomes the next segment, by its name alone, and is written in place; once its events are acknowledged it
 * is zeros again and gets its name back. So events go through it for as long as the control plane takes them, and half of it is for what is final.
 */
export const reserveName = 'reserve'
const reserveBytes = 1024 * 1024
/** From here on producers wait. What they still say before they come to that fits into the half that is theirs. */
const tightBytes = reserveBytes / 8
/** A disk with so much free is not full any more. */
const roomBytes = 8 * 1024 * 1024

/** False: there is no room even for that. */
export function makeReserve(folder: string): boolean {
  const file = join(folder, reserveName)
  try {
    const descriptor = openPlainFile(file, constants.O_RDWR)
    const { size } = fstatSync(descriptor)
    closeSync(descriptor)
    if (size === reserveBytes) return true
  } catch {
    // There is none.
  }
  try {
    remove(file)
    const descriptor = openSync(file, 'wx', 0o600)
    try {
      writeZeros(descriptor)
    } finally {
      closeSync(descriptor)
    }
    return true
  } catch {
    remove(file)
    return false
  }
}

/** It becomes the segment that begins with event `first`. Throws Node's error. */
export function takeReserve(folder: string, first: number): Segment {
  const file = join(folder, segmentName(first))
  renameSync(join(folder, reserveName), file)
  return { first, file, descriptor: openPlainFile(file, constants.O_RDWR), starts: [0] }
}

/** Its events are acknowledged: it is the reserve again. False: it is gone. */
export function returnReserve(folder: string, { file, descriptor }: Segment): boolean {
  try {
    writeZeros(descriptor)
    const isWhole = fstatSync(descriptor).size === reserveBytes
    if (isWhole) renameSync(file, join(folder, reserveName))
    else remove(file)
    return isWhole
  } catch {
    remove(file)
    return false
  } finally {
    closeSync(descriptor)
  }
}

/** Whether so many more bytes fit without another block. */
export function fitsReserve(segment: Segment, bytes: number, { isFinal }: { isFinal: boolean }): boolean {
  return endOf(segment) + bytes <= (isFinal ? reserveBytes : reserveBytes / 2)
}

export function isReserveTight(segment: Segment): boolean {
  return endOf(segment) >= tightBytes
}

export function hasRoomAgain(folder: string): boolean {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize >= roomBytes
}

function writeZeros(descriptor: number): void {
  const zeros = Buffer.alloc(64 * 1024)
  for (let at = 0; at < reserveBytes; ) {
    at += writeSync(descriptor, zeros, 0, Math.min(zeros.length, reserveBytes - at), at)
  }
}

function remove(file: string): void {
  try {
    unlinkSync(file)
  } catch {
    // There is none, or it can wait.
  }
}
