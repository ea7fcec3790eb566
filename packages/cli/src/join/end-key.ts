import { readPrivateFile } from '@openoz/machine'
import { ApiError } from '@openoz/protocol'
import { openConnection } from '../connection.ts'
import type { JoinedWorker } from './installation.ts'

/** Long enough for a control plane that is there; who uninstalls does not wait for one that is not. */
const limitMs = 5_000

/** The key opens nothing any more. False when that could not be done: it stays good until somebody expires it. */
export async function endKey(key: { serverUrl: string; apiKey: string; env: NodeJS.ProcessEnv }): Promise<boolean> {
  try {
    await using connection = openConnection({ ...key, timeoutMs: limitMs })
    await connection.client.workers.leave()
    return true
  } catch (error) {
    // It opened nothing before.
    return error instanceof ApiError && error.problem.status === 401
  }
}

/** From the file that the worker is started with; undefined where there is none. */
export async function readWorkerKey({ keyFile }: JoinedWorker): Promise<string | undefined> {
  const text = await readPrivateFile(keyFile).catch(() => '')
  return /"?OZ_API_KEY"?\s*[=:]\s*"([^"]+)"/.exec(text)?.[1]
}

/** Ends it, and says so when that could not be done. */
export async function endWorkerKey(
  worker: JoinedWorker,
  { env, say }: { env: NodeJS.ProcessEnv; say: (line: string) => void },
): Promise<void> {
  const apiKey = await readWorkerKey(worker)
  const isEnded = apiKey !== undefined && (await endKey({ serverUrl: worker.serverUrl, apiKey, env }))
  if (!isEnded) say(keyLeft(worker))
}

/** For whoever is to end it by hand. */
export function keyLeft({
  serverUrl,
  workerId,
  keyId,
}: Pick<JoinedWorker, 'serverUrl' | 'workerId' | 'keyId'>): string {
  return `The key of ${workerId} could not be ended at ${serverUrl}; \`oz api-key expire${keyId === undefined ? '' : ` ${keyId}`}\` does it.`
}
