-- Messages to a turn at work, conversations that outlive their run, and usage as model providers bill it.

-- Turns are performed in the order in which they were asked: the seq of their user_message event.
alter table turns add column asked_seq bigint not null default 0;

-- What was said to a turn while it was at work. Taken once a checkpoint has it; what was not taken when its turn ends becomes a turn.
create table messages (
  id uuid primary key,
  run_id uuid not null references runs on delete cascade,
  turn_id uuid not null references turns on delete cascade,
  mode text not null check (mode in ('steer', 'interrupt')),
  text text not null,
  author text not null,
  asked_seq bigint not null,
  created_at timestamptz not null default db_now(),
  taken_at timestamptz
);
create index messages_by_turn on messages (turn_id, asked_seq);

-- A blob that is removed is looked for here.
create index checkpoints_by_blob on checkpoints (blob_id);
create index runs_by_conversation on runs (conversation_id);

alter table saved_workspaces add column conversation_id uuid references conversations on delete cascade;
update saved_workspaces set conversation_id = runs.conversation_id from runs where runs.id = saved_workspaces.run_id;
alter table saved_workspaces alter column conversation_id set not null;

-- What came last is decided by the database: ids carry the clocks of the servers that made them, and those differ. What there is already was
-- made by one server at a time, in the order of its ids.
do $$
declare ordered text;
begin
  foreach ordered in array array['checkpoints', 'saved_workspaces', 'commands'] loop
    execute format('alter table %I add column position bigint', ordered);
    execute format('update %1$I set position = numbered.position
                      from (select id, row_number() over (order by id) as position from %1$I) numbered
                     where numbered.id = %1$I.id', ordered);
    execute format('alter table %1$I alter column position set not null,
                                     alter column position add generated always as identity', ordered);
    execute format('select setval(pg_get_serial_sequence(%1$L, %2$L), (select count(*) + 1 from %1$I), false)',
                   ordered, 'position');
  end loop;
end $$;
drop index checkpoints_by_run, saved_workspaces_by_run, commands_open;
create index checkpoints_by_run on checkpoints (run_id, position desc);
create index checkpoints_by_conversation on checkpoints (conversation_id, position desc);
create index saved_workspaces_by_run on saved_workspaces (run_id, position desc);
create index saved_workspaces_by_conversation on saved_workspaces (conversation_id, position desc);
create index commands_open on commands (execution_id, position) where acked_at is null;
-- Whether an execution was given a command of this type before.
create index commands_by_type on commands (execution_id, type);

-- Blobs that something refers to are looked at once, after the end of the execution that sent them.
alter table blobs add column is_kept boolean not null default false;
create index blobs_not_looked_at on blobs (execution_id) where not is_kept;

-- Input tokens are from now on those that no cache had a part in; the others have columns of their own, since each has its price.
alter table model_usage rename column cached_input_tokens to cache_read_tokens;
update model_usage set input_tokens = greatest(input_tokens - cache_read_tokens, 0);
alter table model_usage add column cache_write_tokens bigint not null default 0;
alter table model_usage add column reasoning_tokens bigint not null default 0;
-- US dollars at the time of the request; null where the price table did not have the model.
alter table model_usage add column cost_usd double precision;

-- A forked conversation begins with copies that no execution made.
alter table checkpoints alter column execution_id drop not null;
alter table saved_workspaces alter column execution_id drop not null;
