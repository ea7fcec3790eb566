import { unlink } from 'node:fs/promises'
import { readPrivateFile } from '@openoz/machine'
import { AppError } from '@openoz/protocol'

export interface AgentEnvironment {
  executionToken: string
  spoolDir: string | undefined
  serverUrl: string | undefined
}

/**
 * Takes what belongs to the agent alone out of `env`, so that no tool inherits it: the token (`OZ_EXECUTION_TOKEN_FILE`, a 0600 file that
 * is deleted once it was read, or `WARP_API_KEY` / `OZ_API_KEY` from workers that know nothing better), `OZ_SPOOL_DIR` and the server's
 * address (`OZ_SERVER_URL`, `WARP_SERVER_ROOT_URL`). Must run before anything else is started. Rejects with `not_logged_in` when there is
 * no token, `private_file_exposed` when others may read the file, or `option_invalid` when it cannot be read.
 */
export async function readAgentEnvironment(env: NodeJS.ProcessEnv): Promise<AgentEnvironment> {
  const tokenFile = take(env, 'OZ_EXECUTION_TOKEN_FILE')
  const ozKey = take(env, 'OZ_API_KEY')
  const warpKey = take(env, 'WARP_API_KEY')
  const ozUrl = take(env, 'OZ_SERVER_URL')
  const warpUrl = take(env, 'WARP_SERVER_ROOT_URL')
  const spoolDir = take(env, 'OZ_SPOOL_DIR')
  const executionToken = tokenFile === undefined ? (ozKey ?? warpKey) : await readTokenFile(tokenFile)
  if (executionToken === undefined) throw new AppError('not_logged_in')
  return { executionToken, spoolDir, serverUrl: ozUrl ?? warpUrl }
}

async function readTokenFile(file: string): Promise<string> {
  let text: string
  try {
    text = await readPrivateFile(file)
  } catch (error) {
    if (error instanceof AppError) throw error
    const code = error instanceof Error && 'code' in error ? error.code : 'unreadable'
    throw new AppError('option_invalid', { option: `The token file ${file}`, problem: `it cannot be read (${code})` })
  }
  // A worker that restarts must not find it either: the token is in this process now, and nowhere else.
  await unlink(file)
  const token = text.trim()
  if (token === '') throw new AppError('option_invalid', { option: `The token file ${file}`, problem: 'it is empty' })
  return token
}

function take(env: NodeJS.ProcessEnv, name: string): string | undefined {
  const value = env[name]?.trim()
  delete env[name]
  return value === '' ? undefined : value
}
