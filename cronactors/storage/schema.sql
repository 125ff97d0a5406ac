-- Schema 1. *_at: whole milliseconds since 1970 UTC. STRICT needs SQLite 3.37.

CREATE TABLE schedulers (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  machine TEXT NOT NULL, pid INTEGER NOT NULL, born TEXT NOT NULL,
  seen_at INTEGER NOT NULL, lease_until INTEGER NOT NULL
) STRICT;

-- What changes with each run stands apart from what users wrote: a run rewrites two small rows, and no prompt.
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  user_id TEXT NOT NULL,
  name TEXT NOT NULL,
  origin TEXT,
  overlap TEXT NOT NULL,
  delete_after_run INTEGER NOT NULL,
  enabled INTEGER NOT NULL,
  crashes INTEGER NOT NULL,
  next_run_at INTEGER,   -- first moment not decided yet; NULL: none left
  held_by INTEGER,       -- the open run that must end first
  last_run_at INTEGER,
  last_error TEXT,
  UNIQUE (user_id, name)
) STRICT;

CREATE TABLE job_specs (
  number INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE,
  schedule TEXT NOT NULL,
  timezone TEXT NOT NULL,
  anchor_at INTEGER NOT NULL,
  max_retries INTEGER NOT NULL,
  timeout_secs REAL NOT NULL,
  session_mode TEXT NOT NULL,
  misfire TEXT NOT NULL,
  delay_ms INTEGER,
  created_at INTEGER NOT NULL,
  prompt TEXT NOT NULL
) STRICT;

CREATE INDEX jobs_due ON jobs (next_run_at, number, id) WHERE enabled = 1 AND held_by IS NULL AND next_run_at IS NOT NULL;

-- A user's jobs in the order in which they were added.
CREATE INDEX jobs_of_user ON jobs (user_id);

-- Whose open run is to be cancelled when the next moment comes.
CREATE INDEX jobs_cancelling ON jobs (next_run_at, id)
  WHERE overlap = 'cancel_other' AND enabled = 1 AND held_by IS NOT NULL AND next_run_at IS NOT NULL;

CREATE INDEX jobs_origin ON jobs (origin) WHERE origin IS NOT NULL;

-- No foreign key: history outlives its job.
CREATE TABLE runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id TEXT NOT NULL,
  job_name TEXT NOT NULL,
  user_id TEXT NOT NULL,
  "trigger" TEXT NOT NULL,
  manual INTEGER NOT NULL,
  scheduled_at INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  coalesced INTEGER NOT NULL,
  status TEXT NOT NULL,
  cause TEXT,
  ready_at INTEGER NOT NULL,
  waits_for TEXT,        -- NULL | session:USER | job:JOB | suspects | pause
  session TEXT,
  owner INTEGER,
  cancel_asked INTEGER NOT NULL,
  started_at INTEGER,
  completed_at INTEGER,
  session_id TEXT NOT NULL,
  progress TEXT,         -- reserved: what a run says of itself while it goes on
  result TEXT,
  error TEXT
) STRICT;

-- Each moment once; also the order of a job's history.
CREATE UNIQUE INDEX runs_of_job ON runs (job_id, scheduled_at, manual, attempt);

-- What may start, and each line of waiting runs.
CREATE INDEX runs_queue ON runs (waits_for, ready_at, id) WHERE status = 'pending';

CREATE INDEX runs_pending ON runs (job_id) WHERE status = 'pending';

CREATE INDEX runs_running ON runs (job_id, owner) WHERE status = 'running';

CREATE UNIQUE INDEX runs_session ON runs (session) WHERE status = 'running' AND session IS NOT NULL;
