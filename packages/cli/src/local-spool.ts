import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import {
  createDialer,
  createEventPost,
  drainSpool,
  endProcessTree,
  executionIdVariable,
  identifyProcess,
  isLockName,
  openSpool,
  readPrivateFile,
  userFolders,
  writePrivateFile,
} from '@openoz/machine'
import type { Logger } from 'pino'

/**
 * Where runs of this machine keep what the control plane does not have yet: `…/openoz/spools/<execution>`, until all of it is delivered. What an
 * agent leaves behind (`undelivered.json` says where it belongs) is sent by the next one; the control plane takes such late evidence for 15 minutes.
 *
 * The address is there from the start, since a killed agent has no last words (on Windows at the end). Whether its agent is gone is for the lock of the spool to say,
 * which knows its owner by pid and start time; then what it started is ended too.
 */
export interface LocalSpool {
  folder: string
  /** For the next one. */
  keep(): Promise<void>
  remove(): Promise<void>
}

interface SpoolAddress {
  serverUrl: string
  token: string
}

const addressName = 'undelivered.json'
/** Long after the control plane takes nothing of it any more. */
const oldestMs = 24 * 60 * 60_000
const leftoverGraceMs = 1_000
/** For all of them together. */
const drainTimeoutMs = 10_000

export async function localSpool(
  env: NodeJS.ProcessEnv,
  { executionId, ...address }: SpoolAddress & { executionId: string },
): Promise<LocalSpool> {
  const folder = join(spoolsFolder(env), executionId)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const keep = () => writePrivateFile(join(folder, addressName), JSON.stringify(address))
  if (canSeeOwners()) await keep()
  return {
    folder,
    keep,
    remove: () => rm(folder, { recursive: true, force: true }),
  }
}

/** Sends what earlier agents of this machine could not. Never rejects. */
export async function drainSpools(
  env: NodeJS.ProcessEnv,
  { except, log, signal }: { except: string; log: Logger; signal: AbortSignal },
): Promise<void> {
  const all = spoolsFolder(env)
  const until = AbortSignal.any([signal, AbortSignal.timeout(drainTimeoutMs)])
  for (const name of await readdir(all).catch(() => [])) {
    const folder = join(all, name)
    if (folder === except || until.aborted) continue
    try {
      await drain(folder, { executionId: name, env, log, signal: until })
    } catch (error) {
      log.debug({ err: error, folder }, 'what an earlier run left could not be sent')
    }
  }
}

async function drain(
  folder: string,
  { executionId, env, log, signal }: { executionId: string; env: NodeJS.ProcessEnv; log: Logger; signal: AbortSignal },
): Promise<void> {
  const text = await readPrivateFile(join(folder, addressName)).catch(() => undefined)
  // Without a lock its agent has not begun: it is about to, or died before there was anything to send.
  const hasBegun = (await readdir(folder)).some(isLockName)
  const isOld = await isTooOld(folder)
  if (!isOld && (text === undefined || !hasBegun)) return
  using spool = await openSpool(folder)
  await endLeftovers(executionId, log)
  if (text === undefined || isOld) return rm(folder, { recursive: true, force: true })
  const { serverUrl, token } = JSON.parse(text) as SpoolAddress
  const dialer = createDialer({ serverUrl, env })
  try {
    const end = await drainSpool({ spool, post: createEventPost(dialer, () => token), log, signal })
    // Refused is as good as delivered: nobody wants it any more.
    if (end.kind !== 'drained' && end.kind !== 'refused') return
  } finally {
    await dialer.close()
  }
  await rm(folder, { recursive: true, force: true })
}

/** Whether the lock of a spool knows that its owner still lives: not where processes have no start time (Windows). */
function canSeeOwners(): boolean {
  return identifyProcess(process.pid) !== undefined
}

/** Nobody else would: tools outlive an agent that was killed. */
async function endLeftovers(executionId: string, log: Logger): Promise<void> {
  if (!canSeeOwners()) return
  const { ended } = await endProcessTree({ marker: `${executionIdVariable}=${executionId}` }, leftoverGraceMs)
  if (ended > 0) log.warn({ executionId, ended }, 'ended what an agent that was killed had left running')
}

async function isTooOld(folder: string): Promise<boolean> {
  return Date.now() - (await stat(folder)).mtimeMs > oldestMs
}

function spoolsFolder(env: NodeJS.ProcessEnv): string {
  return join(userFolders(env).state, 'spools')
}
