import { lstat, writeFile } from 'node:fs/promises'
import { sleep } from '@openoz/machine'
import { logsTail } from '../engine/containers.ts'
import { isEngineAway } from '../engine/engine-failure.ts'
import type { DockerHost, DockerTaskContext } from './docker-host.ts'
import { labelsOf } from './docker-labels.ts'
import { fetchSpool } from './docker-spool.ts'

const maxLogBytes = 256 * 1024
const firstPauseMs = 200
const longestPauseMs = 5_000
/** Of tries that fail for something else than the engine's absence. */
const longestFetchMs = 60_000

/**
 * Copies what an ended agent has left, its last words and its events, to this machine, for as long as it takes: with the container they go. What was copied
 * before stays as it is. Gives up, which the log says, only for what does not come from the engine. Rejects with the signal's reason.
 */
export async function fetchLeft(
  { owner }: Pick<DockerHost, 'owner'>,
  context: DockerTaskContext,
  signal: AbortSignal,
): Promise<void> {
  const { engine, names, paths, log, record } = context
  const deadline = performance.now() + longestFetchMs
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    signal.throwIfAborted()
    try {
      if (!(await lstat(paths.log).catch(() => undefined)))
        await writeFile(paths.log, await logsTail(engine, names.container, { maxBytes: maxLogBytes, signal }), {
          mode: 0o600,
        })
      return await fetchSpool(context, labelsOf(owner, record, 'helper'), { signal })
    } catch (error) {
      signal.throwIfAborted()
      // An engine that is away comes back; a disk without room here may not.
      const isGivenUp = !isEngineAway(error) && performance.now() > deadline
      log[isGivenUp ? 'error' : 'warn']({ error }, 'What an ended agent has left could not be fetched from the engine')
      if (isGivenUp) return
      await sleep(pauseMs, signal)
    }
  }
}
