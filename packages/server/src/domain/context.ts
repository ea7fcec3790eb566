import type { ModelAccess } from '@openoz/protocol'
import type { Logger } from 'pino'
import type { ServerOptions } from '../config.ts'
import type { Signing } from '../signing.ts'
import type { Database, Tx } from '../store/database.ts'

/** What every rule gets as its first parameter. */
export interface Ctx {
  db: Database
  log: Logger
  hints: Hints
  config: ServerOptions
  models: Models
  signing: Signing
  /** This process among the replicas. */
  serverId: string
  publicUrl: string
}

/**
 * Wake-ups, never facts: whoever is woken looks into the database, and looks there from time to time without being woken. They reach the other
 * replicas by NOTIFY, after the commit, coalesced.
 */
export interface Hints {
  publish(topic: Topic): void
  /** `topic` may be a prefix ending in a space: `queue `. Returns the way to stop. */
  subscribe(topic: string, wake: (topic: Topic) => void): () => void
}

/** Says, inside of a transaction, what will have changed when it commits. */
export type Hint = (topic: Topic) => void

export type Topic =
  /** The session log or the state of a run changed. */
  | `run ${string}`
  /** A run is waiting: `queue <team> <worker host or empty>`. */
  | `queue ${string} ${string}`
  /** The inbox of an execution has something. */
  | `commands ${string}`
  /** Something happened to some run that others are told of. */
  | 'run-events'
  /** A worker said something by POST: `worker-frames <channel>`. */
  | `worker-frames ${string}`
  /** A cancel may have to be sent to a worker, or that an execution is over. */
  | 'cancellations'
  /** An operator drains a worker, or does so no more. */
  | 'worker-drains'

/** What rules need to know of the model gateway. */
export interface Models {
  /** Throws `model_unknown`, `model_ambiguous`, `model_provider_missing` or `model_default_missing`. */
  resolve(modelId: string | undefined): Promise<ModelAccess>
}

/**
 * Runs `work` in a transaction and publishes the hints that it gave once that is committed. A transaction that is tried again begins with no
 * hints.
 */
export async function change<T>(ctx: Ctx, work: (tx: Tx, hint: (topic: Topic) => void) => Promise<T>): Promise<T> {
  let topics = new Set<Topic>()
  const result = await ctx.db.transaction((tx) => {
    topics = new Set()
    return work(tx, (topic) => topics.add(topic))
  })
  for (const topic of topics) ctx.hints.publish(topic)
  return result
}
