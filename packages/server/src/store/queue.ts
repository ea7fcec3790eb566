import type { AmbientAgentConfig } from '@openoz/protocol'
import type { Queryable } from './database.ts'

/** What an assignment is made of. */
export interface ClaimedRun {
  runId: string
  executionId: string
  attempt: number
  title: string
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

/**
 * Gives the oldest waiting run that this worker may take, or nothing, and writes its execution and its PENDING event, all in one statement:
 * one round trip is most of what a claim costs. Any number of servers may call it at once.
 *
 * Two index probes, one for runs that name this worker and one for runs that name nobody: `worker_host in (…)` with `order by` would sort the
 * whole queue. Locking both heads is harmless, the later one is free again at commit.
 */
export async function claimNextRun(
  db: Queryable,
  offer: {
    teamId: string
    workerId: string
    connectionId: string
    executionId: string
    tokenHash: Buffer
  },
): Promise<ClaimedRun | undefined> {
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
        where state = 'QUEUED' and team_id = $1 and worker_host = $2
          and (not_before is null or not_before <= (select db_now()))
        order by queued_at, id limit 1 for no key update skip locked
     ), unnamed as (
       select id, queued_at from runs
        where state = 'QUEUED' and team_id = $1 and worker_host = ''
          and (not_before is null or not_before <= (select db_now()))
        order by queued_at, id limit 1 for no key update skip locked
     ), next as (
       select id from (select * from named union all select * from unnamed) heads order by queued_at, id limit 1
     ), run as (
       update runs set state = 'PENDING', fence = fence + 1, updated_at = db_now(),
              status_message = 'Offered to worker ' || $2 || '.'
        where id = (select id from next) returning *
     ), execution as (
       insert into executions (id, run_id, number, state, worker_id, worker_connection_id, token_hash)
       select $4, id, fence, 'offered', $2, $3, $5 from run
     ), log as (
       update session_logs set last_seq = last_seq + 1 from run where session_logs.run_id = run.id returning session_logs.*
     ), event as (
       insert into session_events (run_id, seq, execution_id, type, at, data)
       select run_id, last_seq, $4, 'run_state', db_now(),
              jsonb_build_object('state', 'PENDING', 'message', 'Offered to worker ' || $2 || '.')
         from log
     )
     select run.id, run.fence, run.title, run.prompt, run.config, run.conversation_id, run.scope, run.created_at, run.updated_at,
            teams.wire_id as team_wire_id, users.wire_id as user_wire_id, log.last_seq
       from run join log on true join teams on teams.id = run.team_id left join users on users.id = run.created_by_user`,
    [offer.teamId, offer.workerId, offer.connectionId, offer.executionId, offer.tokenHash],
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

/** Worker hosts that queued runs name, with nobody connected under that id. */
export async function listWaitingHosts(
  db: Queryable,
): Promise<{ teamId: string; workerHost: string; connected: string[] }[]> {
  const { rows } = await db.query<{ team_id: string; worker_host: string; connected: string[] | null }>(
    `select waiting.team_id, waiting.worker_host,
            (select array_agg(distinct worker_id order by worker_id) from worker_connections
              where worker_connections.team_id = waiting.team_id) as connected
       from (select distinct team_id, worker_host from runs where state = 'QUEUED') waiting`,
  )
  return rows.map((row) => ({ teamId: row.team_id, workerHost: row.worker_host, connected: row.connected ?? [] }))
}

/**
 * Agents that only wait for follow-ups on these connections while runs wait for a slot there: as many as runs wait, less those that were asked to
 * leave already; those that have waited longest first.
 */
export async function listIdleExecutionsInTheWay(
  db: Queryable,
  connectionIds: string[],
): Promise<{ executionId: string; runId: string }[]> {
  const { rows } = await db.query<{ id: string; run_id: string }>(
    `select idle.id, idle.run_id
       from worker_connections connection
       cross join lateral (
         select count(*) as count from (
           select from runs where state = 'QUEUED' and team_id = connection.team_id
              and worker_host in ('', connection.worker_id) and (not_before is null or not_before <= db_now())
            limit 100) queued) waiting
       cross join lateral (
         select executions.id, executions.run_id, coalesce(asked.is_asked, false) as is_asked,
                row_number() over (order by coalesce(asked.is_asked, false) desc, turn.ended_at) as place
           from executions
           left join lateral (select max(ended_at) as ended_at from turns where turns.run_id = executions.run_id) turn on true
           left join lateral (
             select true as is_asked from commands
              where execution_id = executions.id and type = 'end_idle' and acked_at is null limit 1) asked on true
          where worker_connection_id = connection.id and executions.state = 'idle') idle
      where connection.id = any($1) and waiting.count > 0 and idle.place <= waiting.count and not idle.is_asked`,
    [connectionIds],
  )
  return rows.map((row) => ({ executionId: row.id, runId: row.run_id }))
}
