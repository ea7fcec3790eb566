import type { Queryable, Tx } from './database.ts'

/** Where a channel's owner has come to. */
export interface FrameCursor {
  channelId: string
  /** Number of a frame. */
  number: number
}

export interface WorkerFrame extends FrameCursor {
  body: string
}

export async function insertWorkerChannel(db: Queryable, channel: { id: string; keyId: string }): Promise<void> {
  await db.query('insert into worker_channels (id, api_key_id) values ($1, $2)', [channel.id, channel.keyId])
}

/** Number of the last frame that was stored, of a channel of this key; undefined: there is none. */
export async function findReceivedForUpdate(
  tx: Tx,
  { channelId, keyId }: { channelId: string; keyId: string },
): Promise<number | undefined> {
  const { rows } = await tx.query<{ received: number }>(
    'select received from worker_channels where id = $1 and api_key_id = $2 for update',
    [channelId, keyId],
  )
  return rows[0]?.received
}

/** Stores frames that follow the last one. */
export async function insertWorkerFrames(tx: Tx, after: FrameCursor, bodies: string[]): Promise<void> {
  await tx.query(
    `insert into worker_frames (channel_id, number, body)
     select $1, $2 + place, body from unnest($3::text[]) with ordinality as frames (body, place)`,
    [after.channelId, after.number, bodies],
  )
  await tx.query('update worker_channels set received = $2 where id = $1', [
    after.channelId,
    after.number + bodies.length,
  ])
}

/** What came on these channels after what was taken there, in order. */
export async function listNewWorkerFrames(db: Queryable, taken: FrameCursor[], limit: number): Promise<WorkerFrame[]> {
  const { rows } = await db.query<{ channel_id: string; number: number; body: string }>(
    `select channel_id, number, body
       from unnest($1::uuid[], $2::bigint[]) as taken (id, last) join worker_frames on channel_id = id and number > last
      order by channel_id, number limit $3`,
    [taken.map(({ channelId }) => channelId), taken.map(({ number }) => number), limit],
  )
  return rows.map((row) => ({ channelId: row.channel_id, number: row.number, body: row.body }))
}

/** Frames up to these numbers. */
export async function deleteWorkerFrames(db: Queryable, handled: FrameCursor[]): Promise<void> {
  await db.query(
    `delete from worker_frames using unnest($1::uuid[], $2::bigint[]) as handled (id, last)
      where channel_id = id and number <= last`,
    [handled.map(({ channelId }) => channelId), handled.map(({ number }) => number)],
  )
}

export async function deleteWorkerChannel(db: Queryable, channelId: string): Promise<void> {
  await db.query('delete from worker_channels where id = $1', [channelId])
}
