import { createWriteStream } from 'node:fs'
import { lstat, mkdir, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { isSpoolFileName, maxSegmentBytes } from '@openoz/machine'
import { isUuid } from '@openoz/protocol'
import { getArchive, inspectContainer } from '../engine/containers.ts'
import { isConflict } from '../engine/engine-failure.ts'
import { createHelper, volumeMount } from '../engine/helper-container.ts'
import { readTar, TarRefused } from '../engine/tar-text.ts'
import { inspectVolume } from '../engine/volumes.ts'
import { removeTree } from '../folder-removal.ts'
import { keptWorkName, savedWorkName, spooledWorkName } from '../task-folder.ts'
import { controlPaths } from './docker-environment.ts'
import type { DockerTaskContext } from './docker-host.ts'
import { controlFolder } from './docker-spec.ts'

/** As much as is delivered of one, see `spool-delivery.ts`, and what else may lie beside. */
const maxSpoolBytes = 2 * 1024 * 1024 * 1024
const maxEntries = 200_000

/**
 * Copies what a dead agent has left in its spool to this machine, where it is delivered from; whole or not at all. The task has written it: nothing but
 * plain files of a spool's names is taken, and what it saved itself because the control plane was away. That it has kept work which is not saved yet is
 * told by an empty folder of that name. Rejects when the engine does not answer; fine when there is nothing, or it was copied before. `isChanged`: it is
 * copied anew; should this process be killed in between there is no copy, and the next one makes it.
 */
export async function fetchSpool(
  context: DockerTaskContext,
  labels: Record<string, string>,
  { isChanged = false, signal }: { isChanged?: boolean; signal?: AbortSignal } = {},
): Promise<void> {
  const { engine, names, paths } = context
  if (!isChanged && (await lstat(paths.spool).catch(() => undefined))) return
  const coming = `${paths.spool}.coming`
  await removeTree(coming)
  await mkdir(coming, { mode: 0o700 })
  const source = await sourceOf(context, labels, signal)
  const stream = source && (await getArchive(engine, source, { path: controlPaths.spool, signal }))
  try {
    if (stream) await unpack(stream, coming)
  } catch (error) {
    // The task's own doing: what came before is taken.
    if (!(error instanceof TarRefused)) throw error
    context.log.error({ error }, 'The spool of an ended agent is none; the rest of it is given up')
  }
  if (isChanged) await removeTree(paths.spool)
  await rename(coming, paths.spool)
  context.log.debug({ from: names.container }, 'The spool of an ended agent was fetched')
}

async function unpack(stream: AsyncIterable<Buffer>, folder: string): Promise<void> {
  for await (const { name, type, size, body } of readTar(stream, { maxBytes: maxSpoolBytes, maxEntries })) {
    const [, top = '', ...below] = name.split('/')
    if (top === keptWorkName) await mkdir(join(folder, keptWorkName), { recursive: true, mode: 0o700 })
    const place = type === 'file' ? placeOf({ top, below, size }) : undefined
    if (place === undefined) continue
    const path = join(folder, place)
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    await pipeline(body, createWriteStream(path, { flags: 'wx', mode: 0o600 }))
  }
}

/** undefined: it does not belong into a spool. */
function placeOf({ top, below, size }: { top: string; below: string[]; size: number }): string | undefined {
  const [name, ...deeper] = below
  if (name === undefined) return isSpoolFileName(top) && size <= maxSegmentBytes ? top : undefined
  const isSaved = top === savedWorkName || top === spooledWorkName
  return isSaved && deeper.length === 0 && (isUuid(name) || name === 'saved.json') ? join(top, name) : undefined
}

/** A container that has the volume. undefined: there is nothing left. */
async function sourceOf(
  context: DockerTaskContext,
  labels: Record<string, string>,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const { engine, names } = context
  return (await inspectContainer(engine, names.container, signal)) ? names.container : await helperOf(context, labels)
}

/** The one that its control volume is filled and read through, made anew where it is gone. undefined: there is no such volume any more. */
export async function helperOf(
  { engine, names }: DockerTaskContext,
  labels: Record<string, string>,
): Promise<string | undefined> {
  if (await inspectContainer(engine, names.helper)) return names.helper
  if (!(await inspectVolume(engine, names.control))) return undefined
  const mounts = [volumeMount(names.control, controlFolder)]
  try {
    return await createHelper(engine, { name: names.helper, labels, mounts })
  } catch (error) {
    if (isConflict(error)) return names.helper
    throw error
  }
}
