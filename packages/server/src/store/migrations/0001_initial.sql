-- The first schema. Migrations are never changed once released: a new one is added beside them.
-- All times come from db_now(); all ids are UUIDv7 made by the programs, so that they sort by time.

-- The control plane's one clock. Tests move it with `create or replace`; nothing else ever does.
create function db_now() returns timestamptz language sql volatile as 'select clock_timestamp()';

-- One row: which installation this is, and a check value of the master key (never the key).
create table installation (
  only_row boolean primary key default true check (only_row),
  id uuid not null,
  master_key_check bytea not null,
  created_at timestamptz not null default db_now()
);

-- One row, written by whichever server is alive: the gap in it after an outage is added to every deadline.
create table control_plane_heartbeat (
  only_row boolean primary key default true check (only_row),
  beat_at timestamptz not null default db_now()
);
insert into control_plane_heartbeat default values;

-- People and teams, in the shape that better-auth reads (user, organization, member); sign-in adds its own tables later.
-- wire_id is the integer twin that the reference wire wants where we have UUIDs.
create table users (
  id uuid primary key,
  wire_id bigint generated always as identity unique,
  name text not null,
  email text not null unique,
  email_verified boolean not null default false,
  image text,
  created_at timestamptz not null default db_now(),
  updated_at timestamptz not null default db_now()
);

create table teams (
  id uuid primary key,
  wire_id bigint generated always as identity unique,
  name text not null,
  slug text not null unique,
  logo text,
  metadata text,
  created_at timestamptz not null default db_now()
);

create table members (
  id uuid primary key,
  team_id uuid not null references teams on delete cascade,
  user_id uuid not null references users on delete cascade,
  role text not null check (role in ('owner', 'admin', 'member')),
  created_at timestamptz not null default db_now(),
  unique (team_id, user_id)
);
create index members_by_user on members (user_id);

create table api_keys (
  id uuid primary key,
  team_id uuid not null references teams on delete cascade,
  -- The person whose rights a key of scope `user` carries; for the others the person who made it.
  user_id uuid references users on delete cascade,
  name text not null,
  scope text not null check (scope in ('user', 'team', 'worker')),
  worker_id text,
  -- SHA-256 of the key: it has 256 random bits, so a slow hash would protect nothing.
  key_hash bytea not null unique,
  key_suffix text not null,
  created_at timestamptz not null default db_now(),
  last_used_at timestamptz,
  expires_at timestamptz,
  revoked_at timestamptz,
  check (scope <> 'user' or user_id is not null),
  check (worker_id is null or scope = 'worker')
);
create index api_keys_by_team on api_keys (team_id, created_at);

create table conversations (
  id uuid primary key,
  team_id uuid not null references teams on delete cascade,
  forked_from uuid references conversations,
  created_at timestamptz not null default db_now()
);

-- One request to do something. Its state is a projection of turns and executions, kept here because everything asks for it.
create table runs (
  id uuid primary key,
  team_id uuid not null references teams on delete cascade,
  -- 'team': every member sees it; 'user': its creator does.
  scope text not null check (scope in ('team', 'user')),
  -- Whose key made it; the person is null for a team's key.
  created_by_user uuid references users,
  created_by_key uuid references api_keys,
  conversation_id uuid not null references conversations,
  parent_run_id uuid references runs,
  title text not null,
  prompt text not null,
  source text not null,
  execution_location text not null check (execution_location in ('LOCAL', 'REMOTE')),
  -- The config as resolved at creation; it never changes afterwards.
  config jsonb not null,
  model_id text,
  -- '' stands for any worker: one value instead of null, so that the claim needs one index probe for it.
  worker_host text not null default '',
  state text not null check (state in
    ('QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS', 'SUCCEEDED', 'FAILED', 'ERROR', 'BLOCKED', 'CANCELLED')),
  status_message text,
  error_code text,
  failure_reason text,
  -- The number of the newest execution. A write from any other changes nothing.
  fence integer not null default 0,
  -- Executions per failure reason so far, for the retry policy: {"lost": 1}.
  retries jsonb not null default '{}',
  cancel_requested_at timestamptz,
  cancel_requested_by text,
  -- Place in the queue: kept when an offer is rejected, renewed by a follow-up.
  queued_at timestamptz not null default db_now(),
  not_before timestamptz,
  created_at timestamptz not null default db_now(),
  updated_at timestamptz not null default db_now(),
  started_at timestamptz,
  ended_at timestamptz
);
create index runs_queue on runs (team_id, worker_host, queued_at, id) where state = 'QUEUED';
create index runs_by_update on runs (team_id, updated_at desc, id desc);
create index runs_by_creation on runs (team_id, created_at desc, id desc);
create index runs_by_parent on runs (parent_run_id) where parent_run_id is not null;

-- One attempt at a run on one worker.
create table executions (
  id uuid primary key,
  run_id uuid not null references runs on delete cascade,
  -- Counts attempts from 1 and is the fence: only the newest may change the run.
  number integer not null,
  state text not null check (state in ('offered', 'claimed', 'running', 'idle', 'ended', 'lost')),
  worker_id text not null,
  worker_connection_id uuid,
  -- SHA-256 of the execution's token.
  token_hash bytea not null unique,
  -- Who renews: the worker until the agent's hello, the agent alone after it.
  lease_holder text not null default 'worker' check (lease_holder in ('worker', 'agent')),
  lease_renewed_at timestamptz not null default db_now(),
  -- The process that said hello: another one is refused.
  process_nonce text,
  acked_n bigint not null default 0,
  cancel_sent_at timestamptz,
  created_at timestamptz not null default db_now(),
  claimed_at timestamptz,
  started_at timestamptz,
  hello_at timestamptz,
  ended_at timestamptz,
  outcome text,
  failure_reason text,
  exit_code integer,
  message text,
  unique (run_id, number)
);
create index executions_live on executions (worker_connection_id) where state in ('offered', 'claimed', 'running', 'idle');
-- At most one execution of a run is live: the database itself refuses a second one.
create unique index executions_one_live on executions (run_id) where state in ('offered', 'claimed', 'running', 'idle');

-- One message to the agent and everything until it rests. The outcome is written once.
create table turns (
  id uuid primary key,
  run_id uuid not null references runs on delete cascade,
  number integer not null,
  message text not null,
  author text not null,
  mode text not null default 'queue' check (mode in ('queue', 'steer', 'interrupt')),
  execution_id uuid references executions,
  outcome text check (outcome in ('SUCCEEDED', 'FAILED', 'ERROR', 'BLOCKED', 'CANCELLED')),
  outcome_message text,
  error_code text,
  created_at timestamptz not null default db_now(),
  started_at timestamptz,
  ended_at timestamptz,
  unique (run_id, number),
  check ((outcome is null) = (ended_at is null))
);

-- Large things in chunks, so that one backup holds everything and replicas need no shared folder.
create table blobs (
  id uuid primary key,
  run_id uuid not null references runs on delete cascade,
  execution_id uuid references executions,
  content_type text not null,
  size_bytes bigint not null,
  sha256 bytea not null,
  created_at timestamptz not null default db_now()
);
create index blobs_by_run on blobs (run_id);

create table blob_chunks (
  blob_id uuid not null references blobs on delete cascade deferrable initially deferred,
  number integer not null,
  bytes bytea not null,
  primary key (blob_id, number)
);
-- Bundles and compressed output do not get smaller by trying again.
alter table blob_chunks alter column bytes set storage external;

-- Conversation state from which an execution can go on.
create table checkpoints (
  id uuid primary key,
  conversation_id uuid not null references conversations on delete cascade,
  run_id uuid not null references runs on delete cascade,
  execution_id uuid not null references executions,
  harness text not null,
  format text not null,
  step integer not null,
  blob_id uuid not null references blobs,
  created_at timestamptz not null default db_now()
);
create index checkpoints_by_run on checkpoints (run_id, id desc);

-- Workspace state, as last saved: one row per save, `repositories` as in the protocol's SavedRepository.
create table saved_workspaces (
  id uuid primary key,
  run_id uuid not null references runs on delete cascade,
  execution_id uuid not null references executions,
  repositories jsonb not null,
  left_out jsonb not null,
  created_at timestamptz not null default db_now()
);
create index saved_workspaces_by_run on saved_workspaces (run_id, id desc);

-- The counter of a run's session log, in a narrow table of its own: a sequence would leave holes, the run's row is locked too often.
create table session_logs (
  run_id uuid primary key references runs on delete cascade,
  last_seq bigint not null default 0
) with (fillfactor = 50);

create table session_events (
  run_id uuid not null references runs on delete cascade,
  seq bigint not null,
  execution_id uuid,
  -- The agent's own number; null for events of the server.
  n bigint,
  type text not null,
  at timestamptz not null,
  data jsonb not null,
  primary key (run_id, seq)
);
create index session_events_steps on session_events (run_id, seq) where type = 'setup_step';

-- What the control plane asks of a live agent: delivered until acknowledged, in the order of ids.
create table commands (
  id uuid primary key,
  run_id uuid not null references runs on delete cascade,
  execution_id uuid not null references executions on delete cascade,
  type text not null,
  payload jsonb not null,
  created_at timestamptz not null default db_now(),
  acked_at timestamptz
);
create index commands_open on commands (execution_id, id) where acked_at is null;

-- Tokens of model calls as the gateway metered them.
create table model_usage (
  id uuid primary key,
  run_id uuid not null references runs on delete cascade,
  execution_id uuid not null references executions,
  provider text not null,
  model text not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cached_input_tokens bigint not null default 0,
  -- The provider did not say; counted from bytes.
  estimated boolean not null default false,
  created_at timestamptz not null default db_now()
);
create index model_usage_by_run on model_usage (run_id);

-- Connections of workers, over all servers. A row is believed while its server beats.
create table worker_connections (
  id uuid primary key,
  server_id uuid not null,
  team_id uuid not null references teams on delete cascade,
  worker_id text not null,
  backend text not null,
  platform text not null,
  version text not null,
  host text not null,
  active integer not null default 0,
  max_concurrent_tasks integer not null default 0,
  draining boolean not null default false,
  connected_at timestamptz not null default db_now(),
  last_seen_at timestamptz not null default db_now()
);
create index worker_connections_by_team on worker_connections (team_id, worker_id);

-- Answers of creating requests, so that a repeated one gets the first one's answer.
create table idempotency_keys (
  owner text not null,
  route text not null,
  key text not null,
  body_hash bytea not null,
  status integer,
  body jsonb,
  created_at timestamptz not null default db_now(),
  primary key (owner, route, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

-- Everything that changed something, by whom. Append-only.
create table audit_events (
  id uuid primary key,
  team_id uuid references teams on delete set null,
  actor text not null,
  action text not null,
  target text not null,
  data jsonb not null default '{}',
  at timestamptz not null default db_now()
);
create index audit_events_by_team on audit_events (team_id, id desc);
