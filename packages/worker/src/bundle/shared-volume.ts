import { sleep } from '@openoz/machine'
import type { Logger } from 'pino'
import { instanceLabel, stateLabel } from '../backends/docker-labels.ts'
import { readArchiveFile } from '../engine/archive-file.ts'
import { inspectContainer, putArchive, removeContainer } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import { EngineFailure, isConflict } from '../engine/engine-failure.ts'
import { createHelper, volumeMount } from '../engine/helper-container.ts'
import { tarOf } from '../engine/tar-text.ts'
import { createVolume, inspectVolume, removeVolume, type Volume } from '../engine/volumes.ts'

/**
 * Volumes that all tasks of an engine share, whichever worker they are of: the name says what one holds, so whoever needs it first fills it.
 *
 *   absent → being filled (there is a container of the filler's name) → complete (a last file says so)
 *
 * An engine gives a name once: to have made the filler is to have the lock. It is a container without content, which never runs; archives are put into
 * and taken out of it. What a filler that died has left is overwritten by the next with the same content. What was found complete is remembered by its
 * date: whoever removes volumes by hand costs one more filling, and no task a start with an empty folder.
 */
export interface SharedVolumeWish {
  volume: string
  filler: string
  /** Of the volume: what it holds, and whose installation made it. */
  labels: Record<string, string>
  /** What the last file says. */
  mark: string
  /** Called with the container that has the volume at `place`; resolves when it is filled, and what is in there was looked at. */
  fill(helper: { id: string; place: string }): Promise<void>
}

export interface SharedVolumes {
  /** Resolves with whether it had to be filled. One filling per volume at a time. */
  ensure(wish: SharedVolumeWish, signal?: AbortSignal): Promise<{ wasFilled: boolean }>
  /** Whether it is the one that was found complete: to be asked once a container has it, from when on it cannot be removed. */
  isSame(volume: string): Promise<boolean>
  /** For the mounts of it: should it have gone, the engine makes it anew, and one without labels would be nobody's. */
  labelsOf(volume: string): Record<string, string>
  /** Resolves once nothing is being filled, or after `withinMs`: what is left half done makes other installations wait for minutes. */
  settle(withinMs: number): Promise<void>
}

export interface SharedVolumesOptions {
  engine: Engine
  installationId: string
  instance: string
  /** Of a filler that an instance of our installation made. */
  isAlive(instance: string): boolean
  log: Logger
}

/** Also where a bundle is mounted: the archives name it. */
export const sharedPlace = '/agent'
const markName = '.complete'

const lookAgainMs = 200
/** Of another installation nobody here knows whether it lives: some 140 MB take that long on a slow line. */
const longestFillingMs = 5 * 60_000

export function createSharedVolumes({ engine, log, ...own }: SharedVolumesOptions): SharedVolumes {
  const complete = new Map<string, string | undefined>()
  const labelled = new Map<string, Record<string, string>>()
  const flights = new Map<string, Promise<{ wasFilled: boolean }>>()

  async function isSame(volume: string): Promise<boolean> {
    const found = await inspectVolume(engine, volume)
    return found !== undefined && complete.has(volume) && complete.get(volume) === found.CreatedAt
  }

  async function ensure(wish: SharedVolumeWish, signal?: AbortSignal): Promise<{ wasFilled: boolean }> {
    labelled.set(wish.volume, wish.labels)
    if (await isSame(wish.volume)) return { wasFilled: false }
    signal?.throwIfAborted()
    const flight = flights.get(wish.volume) ?? begin(wish)
    // Whoever goes away leaves it to the next: it will be wanted again.
    const { promise: gone, reject } = Promise.withResolvers<never>()
    const onAbort = () => reject(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      return await Promise.race([flight, gone])
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  function begin(wish: SharedVolumeWish): Promise<{ wasFilled: boolean }> {
    const flight = make(wish).finally(() => flights.delete(wish.volume))
    flight.catch(() => {})
    flights.set(wish.volume, flight)
    return flight
  }

  async function make(wish: SharedVolumeWish): Promise<{ wasFilled: boolean }> {
    const { volume: name, mark, fill } = wish
    const id = await lock(wish)
    // The engine's date of a volume is that of the last change of its own folder.
    const remember = async () => void complete.set(name, (await inspectVolume(engine, name))?.CreatedAt)
    try {
      const found = await readArchiveFile(engine, id, { path: `${sharedPlace}/${markName}`, maxBytes: 1024 })
      if (found === mark) {
        await remember()
        return { wasFilled: false }
      }
      const startedAt = performance.now()
      await fill({ id, place: sharedPlace })
      const archive = await tarOf([{ name: `${sharedPlace.slice(1)}/${markName}`, mode: 0o644, body: mark }])
      await putArchive(engine, id, { path: '/', archive })
      await remember()
      log.info(
        { volume: name, ms: Math.round(performance.now() - startedAt) },
        'Volume filled, for all tasks of the engine',
      )
      return { wasFilled: true }
    } finally {
      await removeContainer(engine, id).catch((error: unknown) =>
        log.warn({ error, filler: wish.filler }, 'The container that filled a volume could not be removed'),
      )
    }
  }

  /** Waits for whoever fills it. */
  async function lock({ volume: name, filler, labels }: SharedVolumeWish): Promise<string> {
    let seen: { id: string; at: number } | undefined
    for (;;) {
      const volume = await createVolume(engine, { name, labels })
      const isOurs = Object.keys(labels).every((label) => volume.Labels?.[label] !== undefined)
      if (!isOurs) {
        await removeUnlabelled(volume)
        continue
      }
      try {
        const all = { ...labels, [stateLabel]: own.installationId, [instanceLabel]: own.instance }
        return await createHelper(engine, { name: filler, labels: all, mounts: [volumeMount(name, sharedPlace)] })
      } catch (error) {
        if (!isConflict(error)) throw error
      }
      const other = await inspectContainer(engine, filler)
      if (!other) continue
      if (seen?.id !== other.Id) seen = { id: other.Id, at: performance.now() }
      if (isOver(other.Config.Labels ?? {}) || performance.now() - seen.at > longestFillingMs) {
        log.warn({ filler }, 'Whoever filled a volume has not finished; done again')
        await removeContainer(engine, other.Id)
      } else await sleep(lookAgainMs)
    }
  }

  /** One that an engine has made by itself, for a mount without labels. Rejects when it is somebody's, or is used. */
  async function removeUnlabelled({ Name: name, Labels }: Volume): Promise<void> {
    const foreign = `the volume ${name} is none of openoz`
    if (Object.keys(Labels ?? {}).length > 0) throw new EngineFailure('POST /volumes/create', foreign, { status: 409 })
    try {
      await removeVolume(engine, name)
    } catch (error) {
      if (!isConflict(error)) throw error
      throw new EngineFailure('POST /volumes/create', foreign, { status: 409, cause: error })
    }
    log.warn({ volume: name }, 'A volume of this name that nobody had made was removed')
  }

  /** Our own process fills a volume once at a time, so of ours it is what was left. */
  function isOver(labels: Record<string, string>): boolean {
    const instance = labels[instanceLabel] ?? ''
    return labels[stateLabel] === own.installationId && (instance === own.instance || !own.isAlive(instance))
  }

  async function settle(withinMs: number): Promise<void> {
    const waiting = new AbortController()
    const late = sleep(withinMs, waiting.signal).catch(() => {})
    await Promise.race([Promise.allSettled(flights.values()), late])
    waiting.abort()
  }

  return { ensure, isSame, settle, labelsOf: (volume) => labelled.get(volume) ?? {} }
}
