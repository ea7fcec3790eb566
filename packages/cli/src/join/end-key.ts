import { readPrivateFile } from '@openoz/machine'
import { openConnection } from '../connection.ts'
import type { JoinedWorker } from './installation.ts'

/** Long enough for a control plane that is there; who uninstalls does not wait for one that is not. */
const limitMs = 5_000

/** The worker's key opens nothing any more. False when that could not be done: it stays good until somebody expires it. */
export async function endKey({ keyFile, serverUrl }: JoinedWorker, env: NodeJS.ProcessEnv): Promise<boolean> {
  try {
    const apiKey = /"?OZ_API_KEY"?\s*[=:]\s*"([^"]+)"/.exec(await readPrivateFile(keyFile))?.[1] ?? ''
    await using connection = openConnection({ serverUrl, apiKey, env, timeoutMs: limitMs })
    await connection.client.workers.leave()
    return true
  } catch {
    return false
  }
}
