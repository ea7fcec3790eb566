import type { AmbientAgentConfig } from '@openoz/protocol'
import type pg from 'pg'
import { heartbeatIsFresh } from './control-plane.ts'
import type { Database, Queryable } from './database.ts'
import { live } from './execution-states.ts'

/** What an assignment is made of. */
export interface ClaimedRun {
  runId: string
  executionId: string
  attempt: number
  title: string
  /** What the turn asks that waits: the run's prompt, or a later message. */
  prompt: string
  config: AmbientAgentConfig
  conversationId: string
  scope: 'team' | 'user'
  teamWireId: number
  userWireId: number | null
  createdAt: Date
  updatedAt: Date
  lastSeq: number
}

interface ClaimOffer {
  teamId: string
  workerId: string
  connectionId: string
  /** The worker's process; null where it does not say. */
  instance: string | null
  executionId: string
  tokenHash: Buffer
  outageSeconds: number
  /**
   * For a worker whose messages name the run only: it gets no run of which it may still have an earlier execution, whose late end would count as this
   * one's. Not for ever: what it has said nothing of for this long is not waited for.
   */
  earlierForSeconds: number | null
}

/**
 * Gives the oldest waiting run that this worker may take, or nothing. Any number of servers may call it at once.
 *
 * The database refuses a second live execution of a run. No queued run should have one; where one has, it is passed over, so that it stops nobody
 * behind it. Only then, because to ask it of every claim makes each 15 % dearer.
 */
export async function claimNextRun(db: Database, offer: ClaimOffer): Promise<ClaimedRun | undefined> {
  const alsoAsked = offer.earlierForSeconds === null ? '' : hasNoEarlierHere
  try {
    return await claimOldest(db, offer, alsoAsked)
  } catch (error) {
    if ((error as pg.DatabaseError).constraint !== 'executions_one_live') throw error
    return claimOldest(db, offer, `${alsoAsked} ${hasNoLiveExecution}`)
  }
}

/** Its delay is over, and nothing of an attempt before it may run any more. */
const mayBegin = `(not_before is null or not_before <= (select db_now()))
          and (awaits_gone is null or awaits_gone_until <= (select db_now()))`

/** Asked with the claim: without a heartbeat for so long no wait is over, because the time is given back to it first. */
const mayBeginNow = `${mayBegin} and (not_before is null and awaits_gone is null
            or ${heartbeatIsFresh('$7')})`

/** Asked with the claim itself: no claim that begins once the drain is stored finds anything. */
const isNotDrained =
  'not exists (select from worker_drains where worker_drains.team_id = $1 and worker_drains.worker_id = $2)'

const hasNoLiveExecution = `and not exists (
            select from executions
             where run_id = runs.id and executions.state in ${live})`

const hasNoEarlierHere = `and not exists (
            select from executions
             where run_id = runs.id and worker_connection_id = $3 and gone_at is null
               and coalesce(executions.ended_at > db_now() - make_interval(secs => $8), true))`

/**
 * Takes the run, and writes its execution and its PENDING event, all in one statement: one round trip is most of what a claim costs.
 *
 * Two index probes, one for runs that name this worker and one for runs that name nobody: `worker_host in (…)` with `order by` would sort the
 * whole queue. Locking both heads is harmless, the later one is free again at commit.
 */
async function claimOldest(db: Database, offer: ClaimOffer, alsoAsked: string): Promise<ClaimedRun | undefined> {
  const { rows } = await db.query<{
    id: string
    fence: number
    title: string
    prompt: string
    config: AmbientAgentConfig
    conversation_id: string
    scope: 'team' | 'user'
    team_wire_id: number
    user_wire_id: number | null
    created_at: Date
    updated_at: Date
    last_seq: number
  }>(
    `with named as (
       select id, queued_at from runs
        where state = 'QUEUED' and execution_location = 'REMOTE' and team_id = $1 and worker_host = $2 and ${isNotDrained}
          and ${mayBeginNow} ${alsoAsked}
        order by queued_at, id limit 1 for no key update skip locked
     ), unnamed as (
       select id, queued_at from runs
        where state = 'QUEUED' and execution_location = 'REMOTE' and team_id = $1 and worker_host = '' and ${isNotDrained}
          and ${mayBeginNow} ${alsoAsked}
        order by queued_at, id limit 1 for no key update skip locked
     ), next as (
       select id from (select * from named union all select * from unnamed) heads order by queued_at, id limit 1
     ), run as (
       update runs set state = 'PENDING', fence = fence + 1, updated_at = db_now(),
              status_message = 'Offered to worker ' || $2 || '.', failure_reason = null
        where id = (select id from next) returning *
     ), execution as (
       insert into executions (id, run_id, number, state, worker_id, worker_connection_id, token_hash, worker_instance, retry_of)
       select $4, id, fence, 'offered', $2, $3, $5, $6,
              case when retries <> '{}' then (
                select id from executions before
                 where before.run_id = run.id and before.outcome is distinct from 'rejected' order by number desc limit 1) end
         from run
     ), log as (
       update session_logs set last_seq = last_seq + 1 from run where session_logs.run_id = run.id returning session_logs.*
     ), event as (
       insert into session_events (run_id, seq, execution_id, type, at, data)
       select run_id, last_seq, $4, 'run_state', db_now(),
              jsonb_build_object('state', 'PENDING', 'message', 'Offered to worker ' || $2 || '.')
         from log
     )
     select run.id, run.fence, run.title, run.config,
            coalesce((select message from turns where turns.run_id = run.id and outcome is null order by asked_seq, number limit 1),
                     run.prompt) as prompt,
            run.conversation_id, run.scope, run.created_at, run.updated_at,
            teams.wire_id as team_wire_id, users.wire_id as user_wire_id, log.last_seq
       from run join log on true join teams on teams.id = run.team_id left join users on users.id = run.created_by_user`,
    [
      ...[offer.teamId, offer.workerId, offer.connectionId, offer.executionId, offer.tokenHash, offer.instance],
      ...[offer.outageSeconds, ...(offer.earlierForSeconds === null ? [] : [offer.earlierForSeconds])],
    ],
  )
  const row = rows[0]
  return (
    row && {
      runId: row.id,
      executionId: offer.executionId,
      attempt: row.fence,
      title: row.title,
      prompt: row.prompt,
      config: row.config,
      conversationId: row.conversation_id,
      scope: row.scope,
      teamWireId: row.team_wire_id,
      userWireId: row.user_wire_id,
      createdAt: row.created_at,
      updatedAt: row.updated_at,
      lastSeq: row.last_seq,
    }
  )
}

/**
 * Of these workers, those that a run names which may begin; the empty worker id stands for runs that name none. Takes no locks. One index probe
 * each, which is what the order is for: as a join over all of the queue, or as a search for any of them, it would grow with that.
 */
export async function listWorkersWithRuns(
  db: Queryable,
  workers: { teamId: string; workerId: string }[],
): Promise<{ teamId: string; workerId: string }[]> {
  const { rows } = await db.query<{ team_id: string; worker_id: string }>(
    `select worker.team_id, worker.worker_id
       from unnest($1::uuid[], $2::text[]) as worker (team_id, worker_id)
      cross join lateral (
        select from runs
         where state = 'QUEUED' and execution_location = 'REMOTE'
           and runs.team_id = worker.team_id and worker_host = worker.worker_id and ${mayBegin}
         order by queued_at, id limit 1) waiting`,
    [workers.map(({ teamId }) => teamId), workers.map(({ workerId }) => workerId)],
  )
  return rows.map((row) => ({ teamId: row.team_id, workerId: row.worker_id }))
}

/**
 * Worker hosts that queued runs name, and the workers that could be meant. From each team and host to the next one along the index: `distinct` reads
 * the whole queue (at 10,000 runs 9 ms instead of 0.1).
 */
export async function listWaitingHosts(
  db: Queryable,
): Promise<{ teamId: string; workerHost: string; connected: string[]; draining: string[] }[]> {
  const { rows } = await db.query<{
    team_id: string
    worker_host: string
    connected: string[] | null
    draining: string[] | null
  }>(
    `with recursive waiting as (
       (select team_id, worker_host from runs
         where state = 'QUEUED' and execution_location = 'REMOTE' order by team_id, worker_host limit 1)
       union all
       select next.team_id, next.worker_host from waiting cross join lateral (
         select team_id, worker_host from runs
          where state = 'QUEUED' and execution_location = 'REMOTE'
            and (team_id, worker_host) > (waiting.team_id, waiting.worker_host)
          order by team_id, worker_host limit 1) next
     )
     select waiting.team_id, waiting.worker_host,
            (select array_agg(distinct worker_id order by worker_id) from worker_connections
              where worker_connections.team_id = waiting.team_id) as connected,
            (select array_agg(worker_id) from (
               select worker_id from worker_connections where worker_connections.team_id = waiting.team_id
                group by worker_id
               having bool_and(draining or exists (
                 select from worker_drains drained
                  where drained.team_id = waiting.team_id and drained.worker_id = worker_connections.worker_id))) ids) as draining
       from waiting`,
  )
  return rows.map((row) => ({
    teamId: row.team_id,
    workerHost: row.worker_host,
    connected: row.connected ?? [],
    draining: row.draining ?? [],
  }))
}

/**
 * Agents on these connections that only wait for follow-ups while runs wait for a slot. Each waiting run asks one agent of its team to leave, less
 * those that were asked already: those that have rested longest first. Runs that name a worker ask its agents, the others ask whoever is left,
 * also on the full connections of other servers, which choose by the same order.
 */
export async function listIdleExecutionsInTheWay(
  db: Queryable,
  connectionIds: string[],
): Promise<{ executionId: string; runId: string }[]> {
  const { rows } = await db.query<{ id: string; run_id: string }>(
    `with connection as (
       select id, team_id, worker_id from worker_connections
        where id = any($1)
           or (team_id in (select team_id from worker_connections where id = any($1))
               and not draining and max_concurrent_tasks > 0 and active >= max_concurrent_tasks
               and not exists (select from worker_drains drained
                                where drained.team_id = worker_connections.team_id and drained.worker_id = worker_connections.worker_id))
     ), waiting as (
       select team_id, worker_host, count
         from (select distinct team_id, unnest(array['', worker_id]) as worker_host from connection) host
        cross join lateral (
          select count(*) as count from (
            select from runs where state = 'QUEUED' and execution_location = 'REMOTE'
               and team_id = host.team_id and worker_host = host.worker_host
               and ${mayBegin}
             limit 100) queued) queued
     ), resting as (
       select executions.id, run_id, connection.id as connection_id, team_id, connection.worker_id, rested_since,
              coalesce(asked.is_asked, false) as is_asked,
              row_number() over (partition by team_id, connection.worker_id order by asked.is_asked nulls last, rested_since, executions.id) as place
         from connection join executions on worker_connection_id = connection.id and executions.state = 'idle'
         cross join lateral (select max(ended_at) as rested_since from turns where turns.run_id = executions.run_id) turn
         left join lateral (
           select true as is_asked from commands
            where execution_id = executions.id and type = 'end_idle' and acked_at is null limit 1) asked on true
     ), placed as (
       select resting.*, place <= named.count as is_for_named,
              row_number() over (partition by team_id, place <= named.count order by not is_asked, rested_since, id) as team_place
         from resting join waiting named using (team_id)
        where named.worker_host = resting.worker_id
     )
     select placed.id, run_id from placed join waiting unnamed using (team_id)
      where unnamed.worker_host = '' and connection_id = any($1) and not is_asked
        and (is_for_named or team_place <= unnamed.count)`,
    [connectionIds],
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id }))
}
