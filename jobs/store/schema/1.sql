-- A state of a run is in one row. What is large, and what an attempt has, is elsewhere, as
-- each beat of a runner writes this row.
CREATE TABLE runs (
  id          {id},
  job         {text} NOT NULL,
  key         {text} NOT NULL, -- '=' and the caller's, or '~' and a random one
  by_whom     {text} NOT NULL,
  state       {text} NOT NULL,
  attempt     integer NOT NULL DEFAULT 0,
  base        integer NOT NULL DEFAULT 0, -- the last attempt before the last retry by hand
  spent       integer NOT NULL DEFAULT 0,
  attempts    integer NOT NULL,
  backoff     bigint NOT NULL,
  runner      {text} NOT NULL DEFAULT '',
  engine      {text} NOT NULL DEFAULT '',
  claim       {text} NOT NULL DEFAULT '', -- which call of Claim took it
  outcome     {text} NOT NULL DEFAULT '',
  exit        integer,
  why         {text} NOT NULL DEFAULT '',
  cancelling  integer NOT NULL DEFAULT 0,
  created     bigint NOT NULL,
  due         bigint NOT NULL,
  leased      bigint NOT NULL DEFAULT 0,
  started     bigint NOT NULL DEFAULT 0,
  ended       bigint NOT NULL DEFAULT 0,
  lease_until bigint NOT NULL DEFAULT 0, -- in no index: a renewal then touches none
  UNIQUE (job, key)
);
CREATE INDEX runs_of_job ON runs (job, id);
CREATE INDEX runs_in_state ON runs (state, id);
CREATE INDEX runs_of_job_in_state ON runs (job, state, id);
CREATE INDEX runs_queued ON runs (job, due, id) WHERE state = 'queued';
CREATE INDEX runs_active ON runs (job, id) WHERE state IN ('leased', 'running');
CREATE INDEX runs_ended ON runs (job, ended, id) WHERE ended > 0;

CREATE TABLE inputs (
  run   bigint PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
  args  {text},
  name  {text}, -- of the file, if it is a run of one
  shard integer,
  lines bigint,
  bytes bigint
);

CREATE TABLE attempts (
  run        bigint NOT NULL REFERENCES runs ON DELETE CASCADE,
  number     integer NOT NULL,
  runner     {text} NOT NULL,
  engine     {text} NOT NULL,
  outcome    {text} NOT NULL DEFAULT '',
  exit       integer,
  why        {text} NOT NULL DEFAULT '',
  late       {text} NOT NULL DEFAULT '', -- what its runner told when it was stale
  spent      integer NOT NULL DEFAULT 0,
  leased     bigint NOT NULL,
  started    bigint NOT NULL DEFAULT 0,
  ended      bigint NOT NULL DEFAULT 0,
  length     bigint NOT NULL DEFAULT 0,  -- of the log, with what was thrown away
  cut        bigint NOT NULL DEFAULT 0,
  log_end    bigint,                     -- the length that the runner told, if it did
  head_parts integer NOT NULL DEFAULT 0,
  head_bytes bigint NOT NULL DEFAULT 0,
  tail_at    bigint NOT NULL DEFAULT -1, -- where the tail begins; -1: all is head
  tail_parts integer NOT NULL DEFAULT 0,
  tail_bytes bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (run, number)
);

-- What is between the end of a part and the next one was thrown away.
CREATE TABLE logs (
  run    bigint NOT NULL,
  number integer NOT NULL,
  at     bigint NOT NULL,
  size   integer NOT NULL,
  data   {blob} NOT NULL,
  PRIMARY KEY (run, number, at),
  FOREIGN KEY (run, number) REFERENCES attempts ON DELETE CASCADE
);

CREATE TABLE files (
  name     {text} PRIMARY KEY,
  position {text} NOT NULL,
  shard    integer NOT NULL,
  lines    bigint NOT NULL,
  bytes    bigint NOT NULL,
  at       bigint NOT NULL,
  spawned  integer NOT NULL DEFAULT 0
);
CREATE INDEX files_of_shard ON files (shard, position);
CREATE INDEX files_new ON files (at, name) WHERE spawned = 0;

CREATE TABLE cursors (
  shard     integer PRIMARY KEY,
  position  {text} NOT NULL DEFAULT '',
  forgotten {text} NOT NULL DEFAULT '' -- the highest position whose file was forgotten
);

CREATE TABLE audits (
  n         {id},
  id        {text} NOT NULL UNIQUE,
  who       {text} NOT NULL,
  from_addr {text} NOT NULL,
  what      {text} NOT NULL,
  why       {text} NOT NULL,
  outcome   {text} NOT NULL,
  at        bigint NOT NULL
);
