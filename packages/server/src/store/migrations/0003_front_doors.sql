-- Runs on people's own machines, environments, labels, shares, attachments, messages between runs, and one order of events over all runs.

create table environments (
  id uuid primary key,
  team_id uuid not null references teams on delete cascade,
  scope text not null check (scope in ('team', 'user')),
  created_by_user uuid references users,
  created_by_key uuid references api_keys,
  edited_by_user uuid references users,
  edited_by_key uuid references api_keys,
  config jsonb not null,
  -- Of the last run that got as far as preparing it.
  setup_failed boolean not null default false,
  created_at timestamptz not null default db_now(),
  updated_at timestamptz not null default db_now()
);
create index environments_by_team on environments (team_id, updated_at desc, id desc);

alter table runs
  -- null: none, or one that was given inline. No reference: a run keeps its copy, and under which id it had it, when the environment is deleted.
  add column environment_id uuid,
  add column metadata jsonb not null default '{}',
  -- Of a run on a machine of its own: that machine's name.
  add column host text,
  add column mode text not null default 'normal' check (mode in ('normal', 'plan', 'orchestrate'));
create index runs_by_environment on runs (environment_id, created_at desc) where environment_id is not null;
create index runs_by_metadata on runs using gin (metadata jsonb_path_ops) where metadata <> '{}';

-- Who may look at a run or steer it, beside those who may anyway.
create table run_shares (
  run_id uuid not null references runs on delete cascade,
  subject text not null check (subject in ('self', 'team', 'public', 'user')),
  email text not null default '',
  access text not null check (access in ('view', 'edit')),
  created_at timestamptz not null default db_now(),
  primary key (run_id, subject, email),
  check ((subject = 'user') = (email <> ''))
);

-- Events over all runs. Readers go on behind the last sequence that they saw, so none may appear below it later: an event is numbered after its
-- transaction has ended, by one numbering transaction at a time (store/run-events.ts).
create table run_events (
  id bigint generated always as identity primary key,
  -- null: not numbered yet, and seen by no reader.
  sequence bigint unique,
  run_id uuid not null references runs on delete cascade,
  event_type text not null,
  ref_id text,
  execution_id uuid,
  occurred_at timestamptz not null default db_now()
);
create sequence run_event_sequence owned by run_events.sequence;
create index run_events_by_run on run_events (run_id, sequence);
create index run_events_not_numbered on run_events (id) where sequence is null;
create index run_events_by_age on run_events using brin (occurred_at);

-- From run to run. What people say to a turn is in `messages`.
create table run_messages (
  id uuid primary key,
  sender_run_id uuid not null references runs on delete cascade,
  recipient_run_id uuid not null references runs on delete cascade,
  subject text not null,
  body text not null,
  sent_at timestamptz not null default db_now(),
  delivered_at timestamptz,
  read_at timestamptz
);
create index run_messages_inbox on run_messages (recipient_run_id, sent_at, id);
create index run_messages_waiting on run_messages (recipient_run_id) where delivered_at is null;

create table attachments (
  id uuid primary key,
  run_id uuid not null references runs on delete cascade,
  -- Order in the request.
  position bigint generated always as identity,
  file_name text not null,
  mime_type text not null,
  size_bytes bigint,
  -- null: prepared, and not uploaded yet.
  blob_id uuid references blobs on delete set null,
  created_at timestamptz not null default db_now()
);
create index attachments_by_run on attachments (run_id, position);
create index attachments_by_blob on attachments (blob_id);

-- Uploads that broke off with their server.
create index blobs_unfinished on blobs (created_at) where sha256 = '';

-- A person's title for it.
alter table conversations add column title text;

-- Artifacts are read from the session log, so that nothing is in one place and not in the other. What lists show of one is kept beside it: plans
-- have up to megabytes of content, and a page of runs would read all of it. (This rewrites the log once.)
alter table session_events add column artifact jsonb
  generated always as (case when type = 'artifact' then data - '{content,blob_id}'::text[] end) stored;
create index session_events_artifacts on session_events (run_id, seq) where type = 'artifact';
-- Agents make the uids, and an index holds 2,704 bytes of one: nobody finds an artifact by a longer one than any of ours.
create index session_events_artifact_uid on session_events ((data ->> 'artifact_uid'))
  where type = 'artifact' and length(data ->> 'artifact_uid') <= 128;

-- Skills (SKILL.md) of the repositories that runs have cloned, as last seen.
create table repository_skills (
  team_id uuid not null references teams on delete cascade,
  host text not null,
  owner text not null,
  repo text not null,
  skill_path text not null,
  name text not null,
  description text not null,
  base_prompt text not null,
  worker_host text,
  error text,
  seen_by_run uuid references runs on delete set null,
  seen_at timestamptz not null default db_now(),
  primary key (team_id, host, owner, repo, skill_path)
);

alter table worker_connections
  add column channel text not null default 'websocket' check (channel in ('websocket', 'http'));

-- Workers whose network ends WebSockets. The server that holds the stream owns the channel; what the worker says comes by POST to any server, is put
-- here, and is taken from here by the owner.
create table worker_channels (
  -- The connection's, whose own row is there only from its hello on.
  id uuid primary key,
  api_key_id uuid not null references api_keys on delete cascade,
  -- Number of the last frame that was stored: an earlier one is a repetition, also when it is no longer here.
  received bigint not null default 0,
  last_seen_at timestamptz not null default db_now()
);

create table worker_frames (
  channel_id uuid not null references worker_channels on delete cascade,
  number bigint not null,
  -- JSON as text: jsonb takes no NUL.
  body text not null,
  primary key (channel_id, number)
);
