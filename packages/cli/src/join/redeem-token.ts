import { hostname } from 'node:os'
import { fullJitterMs, sleep } from '@openoz/machine'
import { ApiError, AppError, type JoinWorkerResponse } from '@openoz/protocol'
import { openConnection } from '../connection.ts'

interface JoinToken {
  serverUrl: string
  token: string
  env: NodeJS.ProcessEnv
}

/** Within the time for which the control plane answers the same machine again. */
const tries = 6

const limitMs = 10_000

/** Whether it can be redeemed, and for which worker only. Rejects with what the control plane says. */
export async function checkToken({ serverUrl, token, env }: JoinToken): Promise<{ workerId: string | undefined }> {
  if (!/^jt-[\w-]+$/.test(token)) throw new AppError('join_token_invalid')
  const { worker_id } = await again(async () => {
    await using connection = openConnection({ serverUrl, apiKey: token, env, timeoutMs: limitMs })
    return await connection.client.workers.checkJoinToken()
  })
  return { workerId: worker_id ?? undefined }
}

interface Redemption {
  workerId: string
  /** Who asks again with the same number is answered again. */
  nonce: string
  /** That this machine has as this worker. */
  workerKey?: string
  /** Ends the asking again, not a request. */
  signal?: AbortSignal
}

/** Spends the token. An answer that got lost is asked for again. */
export async function redeemToken(
  { serverUrl, token, env }: JoinToken,
  { workerId, nonce, workerKey, signal }: Redemption,
): Promise<JoinWorkerResponse> {
  const request = {
    worker_id: workerId,
    host: hostname().slice(0, 255),
    platform: platform(),
    nonce,
    worker_key: workerKey,
  }
  return again(async () => {
    await using connection = openConnection({ serverUrl, apiKey: token, env, timeoutMs: limitMs })
    return await connection.client.workers.join(request)
  }, signal)
}

function platform(): string {
  return `${process.platform}/${process.arch}`
}

async function again<T>(ask: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask()
    } catch (error) {
      // Whatever is no answer of the control plane may have been one that was cut.
      const isFinal = error instanceof ApiError && !error.problem.retryable
      if (attempt === tries || isFinal) throw error
      await sleep(200 + fullJitterMs(attempt), signal)
      signal?.throwIfAborted()
    }
  }
}
