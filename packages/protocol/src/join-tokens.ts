import { z } from 'zod'

/**
 * Join tokens: how a machine that has nothing yet becomes a worker. An admin makes one (`oz worker join-token`), the machine's installer checks it
 * before it writes anything, and redeems it once for a key that can do nothing but connect as that worker.
 */
export const workerJoinTokensPath = '/api/v1/worker-join-tokens'

/** GET checks a token and spends nothing, POST redeems it, DELETE ends the worker's key that asks. */
export const workerJoinPath = '/api/v1/worker-join'

export const createJoinTokenRequest = z
  .strictObject({
    /** The only worker id that may join with it. Default: the machine chooses. */
    worker_id: z.string().min(1).max(255).optional(),
    /** From 1 minute to a day. */
    expires_in_minutes: z.int().min(1).max(1440).default(60),
  })
  .meta({ id: 'CreateJoinTokenRequest' })
export type CreateJoinTokenRequest = z.input<typeof createJoinTokenRequest>

export const createJoinTokenResponse = z
  .object({
    token: z.string().describe('Begins with `jt-`. Shown this once, and good for one machine.'),
    expires_at: z.string(),
  })
  .meta({ id: 'CreateJoinTokenResponse' })
export type CreateJoinTokenResponse = z.infer<typeof createJoinTokenResponse>

/** Of a token that can be redeemed now. */
export const checkJoinTokenResponse = z
  .object({
    /** null: the machine chooses. */
    worker_id: z.string().nullable(),
    expires_at: z.string(),
  })
  .meta({ id: 'CheckJoinTokenResponse' })
export type CheckJoinTokenResponse = z.infer<typeof checkJoinTokenResponse>

export const joinWorkerRequest = z
  .strictObject({
    worker_id: z.string().min(1).max(255),
    /** Name of the machine, for the key's name. */
    host: z.string().max(255),
    /** As in `worker_hello`. */
    platform: z.string().max(64),
    /** 16 random bytes or more, as hex. Who lost the answer asks again with the same one, for 10 minutes. */
    nonce: z.string().regex(/^[0-9a-f]{32,128}$/, 'must be 32 to 128 hexadecimal digits'),
    /** A key of that worker id which the machine has: with it the id is the machine's own, and a token for any worker will do. Stays as it is. */
    worker_key: z.string().max(255).optional(),
  })
  .meta({ id: 'JoinWorkerRequest' })
export type JoinWorkerRequest = z.infer<typeof joinWorkerRequest>

export const joinWorkerResponse = z
  .object({
    /** Connects as this worker id, and can do nothing else. Shown this once. */
    api_key: z.string(),
    /** Of the key, by which `oz api-key expire` knows it. */
    key_id: z.string(),
    worker_id: z.string(),
  })
  .meta({ id: 'JoinWorkerResponse' })
export type JoinWorkerResponse = z.infer<typeof joinWorkerResponse>
