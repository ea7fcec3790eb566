/**
 * Images for containers: from the engine, or through it from a registry.
 *
 * One pull per image is under way at any time. Whoever wants the same image joins it and sees its progress; one that goes away leaves it to the
 * others, and the last one ends it. Tries and what a failure means belong to the pull, so that all who wait are told the same.
 *
 * Without a policy (nobody has said one) an image with a version is pulled once and kept; one without (`latest`) is pulled each time, and the one
 * that is on the engine has to do when its registry gives none: a machine without a network goes on, and an image that was only ever built there
 * is found. `notice` says so then.
 */

import { setTimeout as delay } from 'node:timers/promises'
import { AppError, messageOf } from '@openoz/protocol'
import type { Logger } from 'pino'
import { asFailure, type Engine } from './engine.ts'
import { EngineFailure } from './engine-failure.ts'
import { type ImageReference, parseImage } from './image-reference.ts'
import { type ImageConfig, type ImageDetails, inspectImage } from './images.ts'
import { jsonLines } from './json-lines.ts'
import { isTransientPullFailure, pullFailure } from './pull-failure.ts'
import { type PullProgress, PullProgressSum, progressGapMs } from './pull-progress.ts'
import { registryAuth } from './registry-login.ts'

/** When the registry is asked for an image that the engine may have. */
export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never'

export interface PulledImage {
  /** "sha256:…": what to create containers of. The name may mean another image a moment later. */
  id: string
  /** "sha256:…", by which its registry knows it; an image that was never in one has none. */
  digest?: string
  /** "linux/amd64" */
  platform: string
  config: ImageConfig
  /** For the run's owner: the image was taken as it lies on the engine, and why. */
  notice?: string
}

export interface EnsureOptions {
  policy?: PullPolicy
  /** What the container is to run on, "linux/amd64". */
  platform: string
  /** Called every 2 s at first, and up to every 32 s in a long pull, also when nothing has moved. Never for an image that is there. Must not throw. */
  onProgress?: (progress: PullProgress) => void
  signal?: AbortSignal
}

export interface ImagePuller {
  /**
   * Rejects with an `image_…` error, with `credential_helper_failed` or `docker_config_unreadable` when a login was wanted and could not be read, with
   * an EngineFailure when the engine is away, or with the signal's reason.
   */
  ensure(image: string, options: EnsureOptions): Promise<PulledImage>
}

export interface ImagePullerOptions {
  /** For the operator's logins. */
  env: NodeJS.ProcessEnv
  log: Logger
  /** Before each further try at a registry that cannot be reached. Default 1, 4 and 10 s. */
  retryDelaysMs?: number[]
}

interface Pull {
  promise: Promise<ImageDetails>
  watchers: Set<object>
  listeners: Set<(progress: PullProgress) => void>
  /** What was told last, for those who join later. */
  told?: PullProgress
  controller: AbortController
}

export function createImagePuller(engine: Engine, options: ImagePullerOptions): ImagePuller {
  const { env, log, retryDelaysMs = [1_000, 4_000, 10_000] } = options
  const pulls = new Map<string, Pull>()

  async function ensure(name: string, { policy, platform, onProgress, signal }: EnsureOptions): Promise<PulledImage> {
    const image = parseImage(name)
    const local = await inspectImage(engine, image.familiar, signal)
    const fits = local !== undefined && platformOf(local) === platform
    if (policy === 'Never' && local === undefined) throw new AppError('image_not_present', { image: image.familiar })
    if (policy === 'Never' || (fits && (policy === 'IfNotPresent' || (policy === undefined && image.hasVersion))))
      return describe(image, local as ImageDetails, platform)
    const mayUseLocal = fits && policy === undefined
    try {
      const details = await join(image, { platform, isHopeful: !mayUseLocal, onProgress, signal })
      return describe(image, details, platform)
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof AppError)) throw error
      if (mayUseLocal && !usesDiskOrImage(error)) {
        log.warn({ image: image.familiar, problem: error.message }, 'the image is taken as it lies on the engine')
        return { ...describe(image, local, platform), notice: noticeOf(image, error) }
      }
      // There is one here, and what is wrong with it says more than that there is no other.
      if (local !== undefined && !fits && isAboutImage(error)) describe(image, local, platform)
      throw error
    }
  }

  /** Resolves with what the engine has after the pull. */
  async function join(image: ImageReference, { platform, isHopeful, onProgress, signal }: JoinOptions) {
    signal?.throwIfAborted()
    const key = `${image.familiar} ${platform} ${isHopeful}`
    const pull = pulls.get(key) ?? begin(key, image, { platform, isHopeful })
    const watcher = {}
    pull.watchers.add(watcher)
    if (onProgress) pull.listeners.add(onProgress)
    if (pull.told) onProgress?.(pull.told)
    const { promise: gone, reject } = Promise.withResolvers<never>()
    const onAbort = () => reject(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      return await Promise.race([pull.promise, gone])
    } finally {
      signal?.removeEventListener('abort', onAbort)
      pull.watchers.delete(watcher)
      if (onProgress) pull.listeners.delete(onProgress)
      if (pull.watchers.size === 0) {
        pull.controller.abort()
        // It is no longer one to join, though its end may take a moment.
        if (pulls.get(key) === pull) pulls.delete(key)
      }
    }
  }

  function begin(key: string, image: ImageReference, wish: { platform: string; isHopeful: boolean }): Pull {
    const controller = new AbortController()
    const listeners: Pull['listeners'] = new Set()
    const onProgress = (progress: PullProgress) => {
      pull.told = progress
      for (const listener of listeners) listener(progress)
    }
    const promise = pullWithTries(image, { ...wish, onProgress, signal: controller.signal })
    const pull: Pull = { promise, watchers: new Set(), listeners, controller }
    pulls.set(key, pull)
    // Whoever waits is told by the promise itself.
    promise.catch(() => {}).finally(() => pulls.get(key) === pull && pulls.delete(key))
    return pull
  }

  async function pullWithTries(image: ImageReference, wish: PullWish): Promise<ImageDetails> {
    const startedAt = performance.now()
    for (const [attempt, waitMs] of [...retryDelaysMs, undefined].entries()) {
      try {
        await pullOnce(image, wish)
        break
      } catch (error) {
        wish.signal.throwIfAborted()
        if (waitMs === undefined || !wish.isHopeful || !isTransientPullFailure(error)) throw error
        log.warn({ image: image.familiar, attempt, problem: messageOf(error) }, 'pull failed; trying again')
        await delay(waitMs, undefined, { signal: wish.signal })
      }
    }
    const details = await inspectImage(engine, image.familiar, wish.signal)
    if (details === undefined) throw fail(image, 'it is not there after the pull', wish.platform)
    const seconds = Math.round((performance.now() - startedAt) / 100) / 10
    log.info({ image: image.familiar, id: details.Id, seconds }, 'image pulled')
    return details
  }

  async function pullOnce(image: ImageReference, { platform, onProgress, signal }: PullWish): Promise<void> {
    const { auth, problem } = await loginFor(image.host, signal)
    const sum = new PullProgressSum()
    const request = 'POST /images/create'
    const query = { fromImage: image.familiarName, tag: image.digest ?? image.tag, platform }
    using _reports = reportRegularly(() => onProgress(sum.now()))
    try {
      const headers = auth === undefined ? undefined : { 'X-Registry-Auth': auth }
      const answer = await engine.stream('POST', '/images/create', { query, headers, signal })
      // Failures on the way come with a 200, as a line of their own.
      for await (const line of jsonLines(answer)) {
        if (typeof line.error === 'string') throw new EngineFailure(request, line.error, { status: 500 })
        sum.take(line)
      }
    } catch (error) {
      signal.throwIfAborted()
      const failure = asFailure(request, error)
      if (!(failure instanceof EngineFailure) || failure.status === undefined) throw failure
      const told = fail(image, failure.engineSays, platform, auth !== undefined)
      throw told.code === 'image_login_required' && problem !== undefined ? problem : told
    }
  }

  /** Public images need no login: that one cannot be read counts only once the registry asks for it. */
  async function loginFor(host: string, signal: AbortSignal): Promise<{ auth?: string; problem?: AppError }> {
    try {
      return { auth: await registryAuth(host, env, signal) }
    } catch (problem) {
      if (!(problem instanceof AppError)) throw problem
      log.warn({ host, problem: problem.message }, 'no login for the registry can be read; trying without')
      return { problem }
    }
  }

  return { ensure }
}

interface JoinOptions extends EnsureOptions {
  /** Nothing else would do: a registry that cannot be reached is tried again. */
  isHopeful: boolean
}

interface PullWish {
  platform: string
  isHopeful: boolean
  onProgress: (progress: PullProgress) => void
  signal: AbortSignal
}

function fail(image: ImageReference, says: string, enginePlatform: string, hadLogin = false): AppError {
  return pullFailure(says, { image, enginePlatform, hadLogin })
}

/** Failures that are not about the registry: another try with the image that is here would hide them. */
function usesDiskOrImage({ code }: AppError): boolean {
  return code === 'image_disk_full' || code === 'image_corrupt' || code === 'image_wrong_platform'
}

function isAboutImage({ code }: AppError): boolean {
  return code === 'image_not_found' || code === 'image_login_required' || code === 'image_wrong_platform'
}

function noticeOf(image: ImageReference, error: AppError): string {
  return `The image ${image.familiar} was taken as it lies on the worker’s engine, as a newer one could not be had: ${error.message}`
}

/** Throws `image_wrong_platform`. */
function describe(image: ImageReference, details: ImageDetails, enginePlatform: string): PulledImage {
  const platform = platformOf(details)
  if (platform !== enginePlatform)
    throw new AppError('image_wrong_platform', { image: image.familiar, imagePlatform: platform, enginePlatform })
  const digest = (details.RepoDigests ?? []).find((name) => name.startsWith(`${image.familiarName}@`))
  return { id: details.Id, digest: digest?.split('@')[1], platform, config: details.Config ?? {} }
}

function platformOf({ Os, Architecture }: ImageDetails): string {
  return `${Os || 'linux'}/${Architecture || 'unknown'}`
}

function reportRegularly(report: () => void): Disposable {
  let count = 0
  let timer: NodeJS.Timeout
  const next = () => {
    timer = setTimeout(() => {
      report()
      next()
    }, progressGapMs(count++))
  }
  next()
  return { [Symbol.dispose]: () => clearTimeout(timer) }
}
