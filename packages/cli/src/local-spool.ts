import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import {
  createDialer,
  createEventPost,
  drainSpool,
  openSpool,
  readPrivateFile,
  writePrivateFile,
} from '@openoz/machine'
import type { Logger } from 'pino'

/**
 * Where runs of this machine keep what the control plane does not have yet: `…/openoz/spools/<execution>`, until all of it is delivered. What an
 * agent leaves behind (`undelivered.json` says where it belongs) is sent by the next one; the control plane takes such late evidence for 15 minutes.
 */
export interface LocalSpool {
  folder: string
  /** For the next one. */
  keep(address: SpoolAddress): Promise<void>
  remove(): Promise<void>
}

interface SpoolAddress {
  serverUrl: string
  token: string
}

const addressName = 'undelivered.json'
/** Long after the control plane takes nothing of it any more. */
const oldestMs = 24 * 60 * 60_000
/** For all of them together. */
const drainTimeoutMs = 10_000

export async function localSpool(env: NodeJS.ProcessEnv, executionId: string): Promise<LocalSpool> {
  const folder = join(spoolsFolder(env), executionId)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  return {
    folder,
    keep: (address) => writePrivateFile(join(folder, addressName), JSON.stringify(address)),
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
      await drain(folder, { env, log, signal: until })
    } catch (error) {
      log.debug({ err: error, folder }, 'what an earlier run left could not be sent')
    }
  }
}

async function drain(
  folder: string,
  { env, log, signal }: { env: NodeJS.ProcessEnv; log: Logger; signal: AbortSignal },
): Promise<void> {
  const text = await readPrivateFile(join(folder, addressName)).catch(() => undefined)
  const isOld = await isTooOld(folder)
  // Its agent is at work, or died without a word.
  if (text === undefined && !isOld) return
  if (text === undefined || isOld) return removeUnused(folder)
  const { serverUrl, token } = JSON.parse(text) as SpoolAddress
  const dialer = createDialer({ serverUrl, env })
  try {
    using spool = await openSpool(folder)
    const end = await drainSpool({ spool, post: createEventPost(dialer, () => token), log, signal })
    // Refused is as good as delivered: nobody wants it any more.
    if (end.kind !== 'drained' && end.kind !== 'refused') return
  } finally {
    await dialer.close()
  }
  await rm(folder, { recursive: true, force: true })
}

/** Not under the hands of an agent: then it is in use, which is an error. */
async function removeUnused(folder: string): Promise<void> {
  using _held = await openSpool(folder)
  await rm(folder, { recursive: true, force: true })
}

async function isTooOld(folder: string): Promise<boolean> {
  return Date.now() - (await stat(folder)).mtimeMs > oldestMs
}

function spoolsFolder(env: NodeJS.ProcessEnv): string {
  return join(env.XDG_STATE_HOME || join(env.HOME || homedir(), '.local', 'state'), 'openoz', 'spools')
}
