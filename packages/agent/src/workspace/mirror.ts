import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { mirrorName, type RepositoryAddress, sleep } from '@openoz/machine'

/**
 * The worker's mirror of a repository, brought up to date while the agent starts. In the folder that the worker names lie, by `mirrorName`:
 *
 *   NAME.pending    at work; touched every few seconds, so that a worker that is gone is noticed
 *   NAME.failed     why there is none, in words
 *   NAME.git        a bare repository of this run's own, whole from the moment that it is there
 */
export const mirrorsVariable = 'OZ_MIRRORS_DIR'

type FoundMirror = { kind: 'ready'; folder: string } | { kind: 'failed'; problem: string } | { kind: 'none' }

interface MirrorRequest {
  folder: string
  address: RepositoryAddress
  timeoutMs: number
  signal?: AbortSignal
}

const lookEveryMs = 25
/** The worker touches it every 2 s. */
const goneAfterMs = 30_000

/** Waits while the worker is at work on it. Rejects with the signal's reason only. */
export async function findMirror({ folder, address, timeoutMs, signal }: MirrorRequest): Promise<FoundMirror> {
  const at = (kind: string) => join(folder, `${mirrorName(address)}.${kind}`)
  const isThere = async (kind: string) => (await stat(at(kind)).catch(() => undefined)) !== undefined
  const from = performance.now()
  for (;;) {
    // Before the others: what takes its place is there when it goes.
    const pending = await stat(at('pending')).catch(() => undefined)
    if (await isThere('git')) return { kind: 'ready', folder: at('git') }
    const problem = await readFile(at('failed'), 'utf8').catch(() => undefined)
    if (problem !== undefined) return { kind: 'failed', problem }
    if (!pending) return { kind: 'none' }
    if (Date.now() - pending.mtimeMs > goneAfterMs) return { kind: 'failed', problem: 'its worker is gone.' }
    if (performance.now() - from > timeoutMs) return { kind: 'failed', problem: 'it took too long.' }
    await sleep(lookEveryMs, signal)
    signal?.throwIfAborted()
  }
}
