import type { Queryable, Tx } from './database.ts'
import { over } from './execution-states.ts'

/** One event to append. `n` is the agent's number; the server's own events have none. */
export interface NewEvent {
  type: string
  /** JSON text, already cleaned of what PostgreSQL cannot store. */
  data: string
  /** RFC 3339; null: now. */
  at: string | null
  n: number | null
  executionId: string | null
}

/**
 * Appends in order and answers the last `seq`. The counter row is locked until commit, so numbers have no holes and no two transactions
 * interleave. Callers that also change the run or an execution lock those first.
 */
export async function appendEvents(tx: Tx, runId: string, events: NewEvent[]): Promise<number> {
  const { rows } = await tx.query<{ last_seq: number }>(
    `with log as (
       update session_logs set last_seq = last_seq + $2 where run_id = $1 returning last_seq
     ), inserted as (
       insert into session_events (run_id, seq, execution_id, n, type, at, data)
       select $1, log.last_seq - $2 + event.ordinality, event.execution_id, event.n, event.type,
              coalesce(event.at, db_now()), event.data
         from log, unnest($3::uuid[], $4::bigint[], $5::text[], $6::timestamptz[], $7::jsonb[])
              with ordinality as event (execution_id, n, type, at, data)
     )
     select last_seq from log`,
    [
      runId,
      events.length,
      events.map((event) => event.executionId),
      events.map((event) => event.n),
      events.map((event) => event.type),
      events.map((event) => event.at),
      events.map((event) => event.data),
    ],
  )
  return rows[0]?.last_seq ?? 0
}

/**
 * The same for events of many runs, in one statement. Counters are locked in the order of their runs, so that two such statements never wait for
 * each other.
 */
export async function appendToLogs(tx: Tx, events: (NewEvent & { runId: string })[]): Promise<void> {
  await tx.query(
    `with event as (
       select *, row_number() over (partition by run_id order by ordinality) as place
         from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::timestamptz[], $6::jsonb[])
              with ordinality as event (run_id, execution_id, n, type, at, data)
     ), size as (
       select run_id, count(*) as appended from event group by run_id
     ), locked as (
       select run_id from session_logs where run_id in (select run_id from size) order by run_id for update
     ), log as (
       update session_logs set last_seq = last_seq + appended
         from size join locked using (run_id)
        where session_logs.run_id = size.run_id
       returning size.run_id, last_seq - appended as before
     )
     insert into session_events (run_id, seq, execution_id, n, type, at, data)
     select run_id, before + place, execution_id, n, type, coalesce(at, db_now()), data from event join log using (run_id)`,
    [
      events.map((event) => event.runId),
      events.map((event) => event.executionId),
      events.map((event) => event.n),
      events.map((event) => event.type),
      events.map((event) => event.at),
      events.map((event) => event.data),
    ],
  )
}

export interface FreshlyAppended {
  runId: string
  ackedN: number
  isOver: boolean
  appended: number
}

/**
 * Appends what follows an execution's acknowledged events without a hole, and renews its lease, in one statement: of a batch that moves no state,
 * round trips are most of the cost (as begin, select, append, update, commit it took three times as long at p50). The execution's row is locked
 * first, then the counter's. Events that were acknowledged already are skipped, what comes after a hole is left out.
 */
export async function appendFreshEvents(
  db: Queryable,
  executionId: string,
  events: (NewEvent & { n: number })[],
): Promise<FreshlyAppended | undefined> {
  const { rows } = await db.query<{ run_id: string; acked_n: number; is_over: boolean; appended: number }>(
    `with execution as (
       select id, run_id, acked_n, state in ${over} as is_over from executions where id = $1 for no key update
     ), numbered as (
       select event.*, row_number() over (order by event.n) as place
         from execution, (select distinct on (n) * from unnest($2::bigint[], $3::text[], $4::timestamptz[], $5::jsonb[])
                            as event (n, type, at, data) order by n) event
        where event.n > execution.acked_n
     ), fresh as (
       select numbered.* from numbered, execution where n = acked_n + place
     ), size as (
       select count(*) as appended from fresh
     ), log as (
       update session_logs set last_seq = last_seq + appended from execution, size
        where session_logs.run_id = execution.run_id and appended > 0 returning last_seq
     ), inserted as (
       insert into session_events (run_id, seq, execution_id, n, type, at, data)
       select run_id, last_seq - appended + place, id, n, type, coalesce(at, db_now()),
              case when is_over then data || '{"late": true}' else data end
         from fresh, execution, size, log
     ), acknowledged as (
       update executions set acked_n = executions.acked_n + appended,
              lease_renewed_at = case when is_over then lease_renewed_at else db_now() end
         from execution, size where executions.id = execution.id
     )
     select run_id, acked_n + appended as acked_n, is_over, appended from execution, size`,
    [
      executionId,
      events.map((event) => event.n),
      events.map((event) => event.type),
      events.map((event) => event.at),
      events.map((event) => event.data),
    ],
  )
  const row = rows[0]
  return row && { runId: row.run_id, ackedN: row.acked_n, isOver: row.is_over, appended: row.appended }
}

/** Stored events of an execution up to `ackedN`, and its sign of life. */
export async function updateAcknowledged(tx: Tx, executionId: string, ackedN: number, renew: boolean): Promise<void> {
  await tx.query(
    `update executions set acked_n = $2,
            lease_renewed_at = case when $3 then db_now() else lease_renewed_at end
      where id = $1`,
    [executionId, ackedN, renew],
  )
}

export interface StoredEvent {
  seq: number
  type: string
  /** The whole event as viewers get it, serialised by the database: nobody parses it again on its way out. */
  json: string
}

/** A page ends with the event that reaches this: a page of large events must fit into memory, several times. */
export const maxPageBytes = 8 * 1024 * 1024

/** At most `limit` events, fewer when they are large, at least one while there are any: only an empty page is the end. */
export async function listEvents(db: Queryable, runId: string, since: number, limit: number): Promise<StoredEvent[]> {
  // Event by event along the primary key, so that nothing after the page's end is read; `before` is the size of what came before.
  const { rows } = await db.query<{ seq: number; type: string; head: string; data: string }>(
    `with recursive page as (
       (select seq, type, execution_id, at, data::text as data, 1 as place, 0 as before
          from session_events where run_id = $1 and seq > $2 order by seq limit 1)
       union all
       select next.seq, next.type, next.execution_id, next.at, next.data, page.place + 1,
              page.before + octet_length(page.data)
         from page cross join lateral (
           select seq, type, execution_id, at, data::text as data
             from session_events where run_id = $1 and seq > page.seq order by seq limit 1) next
        where page.place < $3 and page.before + octet_length(page.data) < $4
     )
     select seq, type, json_strip_nulls(json_build_object('seq', seq, 'type', type, 'execution_id', execution_id,
              'at', to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')))::text as head, data
       from page order by seq`,
    [runId, since, limit, maxPageBytes],
  )
  // `data` is put in as it is: stripping nulls must not reach into it.
  return rows.map((row) => ({
    seq: row.seq,
    type: row.type,
    json: `${row.head.slice(0, -1)},"data":${row.data}}`,
  }))
}

export async function findLastSeq(db: Queryable, runId: string): Promise<number> {
  const { rows } = await db.query<{ last_seq: number }>('select last_seq from session_logs where run_id = $1', [runId])
  return rows[0]?.last_seq ?? 0
}

/** Ids of messages of agents that do not count. Without an index: who asks is about to read the whole log. */
export async function listWithdrawnMessages(db: Queryable, runId: string): Promise<Set<string>> {
  const { rows } = await db.query<{ id: string }>(
    `select jsonb_array_elements_text(data -> 'message_ids') as id from session_events
      where run_id = $1 and type = 'answer_withdrawn' and jsonb_typeof(data -> 'message_ids') = 'array'`,
    [runId],
  )
  return new Set(rows.map(({ id }) => id))
}

/** The steps of the cold-start waterfall, in order. */
export async function listSetupSteps(
  db: Queryable,
  runId: string,
): Promise<{ executionId: string; at: Date; data: Record<string, unknown> }[]> {
  const { rows } = await db.query<{ execution_id: string; at: Date; data: Record<string, unknown> }>(
    `select execution_id, at, data from session_events where run_id = $1 and type = 'setup_step' order by seq`,
    [runId],
  )
  return rows.map((row) => ({ executionId: row.execution_id, at: row.at, data: row.data }))
}
