import { createHash, randomBytes } from 'node:crypto'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { writePrivateFile } from '@openoz/machine'
import type { InstallPlaces } from './installation.ts'

/**
 * `joining.json` in the config folder, mode 0600, from before the token is sent until its key is written down: who is killed in between, and starts the
 * same line again, asks with the same number and gets a key in place of the lost one. `install.sh` knows the file by its name.
 */
export interface JoinAttempt {
  /** SHA-256, as hex. */
  tokenHash: string
  workerId: string
  nonce: string
}

const fileOf = ({ config }: InstallPlaces) => join(config, 'joining.json')
const hashOf = (token: string) => createHash('sha256').update(token).digest('hex')

/** Of this very token; undefined when there was none. */
export async function readAttempt(places: InstallPlaces, token: string): Promise<JoinAttempt | undefined> {
  const attempt = await readAny(places)
  return attempt?.tokenHash === hashOf(token) ? attempt : undefined
}

async function readAny(places: InstallPlaces): Promise<JoinAttempt | undefined> {
  try {
    return JSON.parse(await readFile(fileOf(places), 'utf8')) as JoinAttempt
  } catch {
    return undefined
  }
}

export async function saveAttempt(
  places: InstallPlaces,
  { token, workerId }: { token: string; workerId: string },
): Promise<JoinAttempt> {
  const attempt = { tokenHash: hashOf(token), workerId, nonce: randomBytes(16).toString('hex') }
  await writePrivateFile(fileOf(places), `${JSON.stringify(attempt)}\n`)
  return attempt
}

/** Answers what it was. */
export async function removeAttempt(places: InstallPlaces): Promise<JoinAttempt | undefined> {
  const attempt = await readAny(places)
  await rm(fileOf(places), { force: true })
  return attempt
}
