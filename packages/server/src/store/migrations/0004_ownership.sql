-- Who is responsible for an execution, from its offer until its processes are gone; how often and why a run was tried again.

alter table executions
  -- The worker's process, or the earlier one that it took the task over from: what this one held and its successor does not name is gone.
  add column worker_instance uuid,
  -- Its process has ended, and its worker saves and delivers what it left: the worker renews the lease again.
  add column finishing_at timestamptz,
  -- What its agent was told at its hello: it works that long without a renewal, whatever the servers that sweep are configured to since.
  add column lost_after interval,
  add column settled_after interval,
  -- Deadlines that an outage of the control plane has moved; null: as long after `claimed_at` and `ended_at` as configured.
  add column start_until timestamptz,
  add column evidence_until timestamptz,
  -- Its agent died, and its worker with it.
  add column died_with_worker boolean not null default false,
  -- It was lost or superseded, and its worker has since said that no process of it is left.
  add column gone_at timestamptz,
  -- The attempt at the same turn before it.
  add column retry_of uuid references executions;
create index executions_by_worker_instance on executions (worker_instance)
  where state in ('offered', 'claimed', 'running', 'idle');

alter table runs
  -- Attempts at one turn; null: as often as the reason's retry policy says.
  add column max_attempts integer check (max_attempts between 1 and 10),
  -- Executions that died together with their worker, since the last one that ended well. Follow-ups do not reset it.
  add column worker_deaths integer not null default 0,
  -- A lost execution whose worker has not said yet that its processes are gone: the next one waits for it, and no longer than until then.
  add column awaits_gone uuid,
  add column awaits_gone_until timestamptz;

-- Workers that an operator took out of service from afar: nothing is offered to this id until the entry is gone.
create table worker_drains (
  team_id uuid not null references teams on delete cascade,
  worker_id text not null,
  requested_at timestamptz not null default db_now(),
  requested_by text not null,
  primary key (team_id, worker_id)
);

-- What an agent had changed that lost its lease, delivered by its worker afterwards. Never what a newer execution goes on from.
create table late_workspaces (
  id uuid primary key,
  run_id uuid not null references runs on delete cascade,
  execution_id uuid not null unique references executions on delete cascade,
  repositories jsonb not null,
  created_at timestamptz not null default db_now()
);
create index late_workspaces_by_run on late_workspaces (run_id);
