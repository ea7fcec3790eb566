import { createHmac, randomBytes } from 'node:crypto'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import type { ServerOptions } from './config.ts'
import { newApiKey } from './domain/api-keys.ts'

/**
 * The two secrets that lie in the data folder: the master key, under which secrets are encrypted and which is never in the database, and the
 * first API key. Both are files of mode 0600, written once.
 */
export interface ServerKeys {
  masterKeyFile: string
  /** What the database keeps, to know another master key when it sees one. */
  masterKeyCheck: Buffer
  adminApiKey: string
  adminApiKeyFile: string
}

const masterKeyBytes = 32

export async function openServerKeys(options: ServerOptions): Promise<ServerKeys> {
  const masterKeyFile = options.masterKeyFile ?? join(options.dataDir, 'master.key')
  // A key that was named must exist: making a new one there would hide a wrong path until the first secret cannot be read.
  const masterKey =
    options.masterKeyFile === null
      ? await readOrCreate(masterKeyFile, () => randomBytes(masterKeyBytes).toString('base64'))
      : await readPrivate(masterKeyFile)
  const bytes = Buffer.from(masterKey, 'base64')
  if (bytes.byteLength !== masterKeyBytes)
    throw new AppError('master_key_invalid', {
      file: masterKeyFile,
      problem: `it does not hold ${masterKeyBytes} bytes`,
    })

  const adminApiKeyFile = join(options.dataDir, 'admin-api-key')
  const { bootstrapApiKey } = options
  return {
    masterKeyFile,
    masterKeyCheck: createHmac('sha256', bytes).update('openoz master key check').digest(),
    adminApiKeyFile,
    adminApiKey: bootstrapApiKey ?? (await readOrCreate(adminApiKeyFile, newApiKey)),
  }
}

async function readOrCreate(file: string, create: () => string): Promise<string> {
  try {
    await writeFile(file, `${create()}\n`, { mode: 0o600, flag: 'wx' })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return readPrivate(file)
}

async function readPrivate(file: string): Promise<string> {
  try {
    const { mode } = await stat(file)
    if ((mode & 0o077) !== 0) throw new AppError('private_file_exposed', { file })
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    if (error instanceof AppError) throw error
    throw new AppError('master_key_invalid', { file, problem: (error as Error).message }, { cause: error })
  }
}
