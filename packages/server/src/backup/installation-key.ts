import { hkdfSync } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import type { ServerOptions } from '../config.ts'
import { createOnce, masterKeyCheckOf, readMasterKey } from '../keys.ts'

/** The master key, as far as backups need it. It goes into no file but the target's `master.key`. */
export interface InstallationKey {
  file: string
  masterKey: Buffer
  /** What the database keeps of it. */
  check: Buffer
}

export function masterKeyIn(dataDir: string): string {
  return join(dataDir, 'master.key')
}

/** Rejects with `master_key_invalid` or `private_file_exposed`. Makes no key. */
export async function readInstallationKey(options: ServerOptions): Promise<InstallationKey> {
  const file = options.masterKeyFile ?? masterKeyIn(options.dataDir)
  const masterKey = await readMasterKey(file)
  return { file, masterKey, check: masterKeyCheckOf(masterKey) }
}

/** The keys of one file: `salt` is its own, so no two files are encrypted under the same key. */
export function deriveBackupKeys(masterKey: Buffer, salt: Buffer): { encryption: Buffer; check: Buffer } {
  const derive = (purpose: string, bytes: number) => Buffer.from(hkdfSync('sha256', masterKey, salt, purpose, bytes))
  return { encryption: derive('openoz backup', 32), check: derive('openoz backup key check', 16) }
}

/** Refuses a target that has a key of its own: its server would not start with the restored data. Answers whether it has this one already. */
export async function refuseOtherKey(options: ServerOptions, key: InstallationKey): Promise<boolean> {
  const file = masterKeyIn(options.dataDir)
  const isThere = await stat(file).then(
    () => true,
    () => false,
  )
  if (!isThere) return false
  const found = await readInstallationKey({ ...options, masterKeyFile: file })
  if (!found.check.equals(key.check)) throw new AppError('master_key_mismatch', { file })
  return true
}

/** Puts the key where the next start looks for it, whole or not at all. One that is there already has been compared. */
export function placeMasterKey(key: InstallationKey, dataDir: string): Promise<void> {
  return createOnce(masterKeyIn(dataDir), () => key.masterKey.toString('base64'))
}
