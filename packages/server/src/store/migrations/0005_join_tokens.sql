-- What a machine that has nothing yet becomes a worker with: shown once, redeemed once, for a key that connects as one worker id.
create table join_tokens (
  id uuid primary key,
  team_id uuid not null references teams on delete cascade,
  -- null: a key of the team that nobody in person has.
  created_by uuid references users on delete cascade,
  -- The only worker id that may join with it; null: the machine chooses.
  worker_id text,
  -- SHA-256 of the token: it has 256 random bits, so a slow hash would protect nothing.
  token_hash bytea not null unique,
  created_at timestamptz not null default db_now(),
  expires_at timestamptz not null,
  used_at timestamptz,
  -- Of the request that redeemed it: who lost the answer asks again with the same one.
  used_nonce bytea,
  -- The key that it was redeemed for.
  api_key_id uuid references api_keys on delete set null
);
