import { createHmac, randomBytes } from 'node:crypto'
import { link, open, readFile, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { AppError } from '@openoz/protocol'
import type { ServerOptions } from './config.ts'
import { newApiKey } from './domain/api-keys.ts'
import { syncFolder } from './sync-folder.ts'

/**
 * The two secrets that lie in the data folder: the master key, under which secrets are encrypted and which is never in the database, and the
 * first API key. Both are files of mode 0600, written once: a file has its name only when it is whole and on disk, and of two starters that
 * make one at the same time, both go on with the one that came first.
 */
export interface ServerKeys {
  masterKeyFile: string
  /** What the database keeps, to know another master key when it sees one. */
  masterKeyCheck: Buffer
  /** Signs links; the same on every replica. */
  signingKey: Buffer
  adminApiKey: string
  adminApiKeyFile: string
}

const masterKeyBytes = 32

type KeyErrorCode = 'master_key_invalid' | 'admin_key_invalid'

export async function openServerKeys(options: ServerOptions): Promise<ServerKeys> {
  const masterKeyFile = options.masterKeyFile ?? join(options.dataDir, 'master.key')
  // A key that was named must exist: making a new one there would hide a wrong path until the first secret cannot be read.
  if (options.masterKeyFile === null)
    await createOnce(masterKeyFile, () => randomBytes(masterKeyBytes).toString('base64'))
  const masterKey = await readMasterKey(masterKeyFile)

  const adminApiKeyFile = join(options.dataDir, 'admin-api-key')
  return {
    masterKeyFile,
    masterKeyCheck: masterKeyCheckOf(masterKey),
    signingKey: createHmac('sha256', masterKey).update('openoz signed links').digest(),
    adminApiKeyFile,
    adminApiKey: options.bootstrapApiKey ?? (await openAdminKey(adminApiKeyFile)),
  }
}

export function masterKeyCheckOf(masterKey: Buffer): Buffer {
  return createHmac('sha256', masterKey).update('openoz master key check').digest()
}

/** Rejects with `master_key_invalid` or `private_file_exposed`. */
export async function readMasterKey(file: string): Promise<Buffer> {
  const text = await readPrivate(file, 'master_key_invalid')
  const bytes = Buffer.from(text, 'base64')
  // Buffer skips what is no base64; a key that does not come back as it was written is not the one that was meant.
  const isBase64 = bytes.toString('base64').replace(/=+$/, '') === text.replace(/=+$/, '')
  const problem = !isBase64 ? 'it is not base64' : `it holds ${bytes.byteLength} bytes instead of ${masterKeyBytes}`
  if (!isBase64 || bytes.byteLength !== masterKeyBytes) throw new AppError('master_key_invalid', { file, problem })
  return bytes
}

async function openAdminKey(file: string): Promise<string> {
  await createOnce(file, newApiKey)
  const key = await readPrivate(file, 'admin_key_invalid')
  if (!/^wk-\S{16,}$/.test(key))
    throw new AppError('admin_key_invalid', { file, problem: 'it does not hold one key that begins with wk-' })
  return key
}

/** Writes the file whole or not at all, and not when there is one. */
export async function createOnce(file: string, create: () => string): Promise<void> {
  if (await exists(file)) return
  const temporary = `${file}.${randomBytes(8).toString('hex')}.tmp`
  try {
    const handle = await open(temporary, 'wx', 0o600)
    try {
      await handle.writeFile(`${create()}\n`)
      await handle.sync()
    } finally {
      await handle.close()
    }
    // Unlike a rename, a link never replaces the file of whoever came first.
    await link(temporary, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
    // The name must be on disk before the database knows the key.
    await syncFolder(dirname(file))
  } finally {
    await rm(temporary, { force: true })
  }
}

async function exists(file: string): Promise<boolean> {
  try {
    await stat(file)
    return true
  } catch (error) {
    // Anything else is said when it is read.
    return (error as NodeJS.ErrnoException).code !== 'ENOENT'
  }
}

async function readPrivate(file: string, code: KeyErrorCode): Promise<string> {
  let text: string
  try {
    const { mode } = await stat(file)
    if ((mode & 0o077) !== 0) throw new AppError('private_file_exposed', { file })
    text = (await readFile(file, 'utf8')).trim()
  } catch (error) {
    if (error instanceof AppError) throw error
    throw new AppError(code, { file, problem: (error as Error).message }, { cause: error })
  }
  if (text === '') throw new AppError(code, { file, problem: 'it is empty' })
  return text
}
