import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { readPrivateFile, userFolders, writePrivateFile } from '@openoz/machine'
import { AppError } from '@openoz/protocol'

/** `config.json`: where the control plane is, and the key for it. Written by `oz login` and by the first `oz up`. */
export interface SavedLogin {
  server_url: string
  api_key: string
}

export function savedLoginFile(env: NodeJS.ProcessEnv): string {
  return join(userFolders(env).config, 'config.json')
}

/** undefined when there is none. Rejects with `private_file_exposed` or `config_file_invalid`. */
export async function readSavedLogin(env: NodeJS.ProcessEnv): Promise<SavedLogin | undefined> {
  const file = savedLoginFile(env)
  let text: string
  try {
    text = await readPrivateFile(file)
  } catch (error) {
    if (error instanceof AppError) throw error
    if (isMissing(error)) return undefined
    throw new AppError('config_file_invalid', { file, problem: `it cannot be read (${(error as Error).message})` })
  }
  const login = parseLogin(text)
  if (login) return login
  throw new AppError('config_file_invalid', { file, problem: 'it is no login; `oz logout` removes it' })
}

export async function saveLogin(login: SavedLogin, env: NodeJS.ProcessEnv): Promise<void> {
  await writePrivateFile(savedLoginFile(env), `${JSON.stringify(login, null, 2)}\n`)
}

/** Whether there was one. */
export async function removeSavedLogin(env: NodeJS.ProcessEnv): Promise<boolean> {
  try {
    await unlink(savedLoginFile(env))
    return true
  } catch (error) {
    if (isMissing(error)) return false
    throw error
  }
}

function parseLogin(text: string): SavedLogin | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return undefined
    const { server_url, api_key } = value as Partial<SavedLogin>
    return typeof server_url === 'string' && typeof api_key === 'string' ? { server_url, api_key } : undefined
  } catch {
    return undefined
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')
}
