-- Schema 3: notifications and alerts, what jobs and runs carry, the output of runs, and what pruning has to remember.

-- What the executor returned beside its summary: JSON. The column was reserved for progress, and never written.
ALTER TABLE runs RENAME COLUMN progress TO result_data;

-- How many runs of the job failed or timed out since the last success.
ALTER TABLE jobs ADD COLUMN consecutive_failures INTEGER NOT NULL DEFAULT 0;

-- The latest moment among the job's pruned rows: moments up to it are decided.
ALTER TABLE jobs ADD COLUMN pruned_until INTEGER;

-- For later: until when a pause lasts, and why. A pause of the whole store is a fact in meta.
ALTER TABLE jobs ADD COLUMN paused_until INTEGER;
ALTER TABLE jobs ADD COLUMN pause_note TEXT;

ALTER TABLE job_specs ADD COLUMN description TEXT NOT NULL DEFAULT '';
ALTER TABLE job_specs ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';      -- a JSON list
ALTER TABLE job_specs ADD COLUMN history TEXT NOT NULL DEFAULT '{}';   -- how much of it is kept, where that differs: JSON
ALTER TABLE job_specs ADD COLUMN data TEXT;                            -- JSON; NULL: none

-- The jobs that differ in how much of their history is kept.
CREATE INDEX job_specs_history ON job_specs (number) WHERE history <> '{}';

-- The tags of job_specs, to find jobs by.
CREATE TABLE job_tags (
  tag TEXT NOT NULL,
  number INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
  PRIMARY KEY (tag, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX job_tags_of_job ON job_tags (number);

-- The names of the receivers that an owner has: a JSON list.
ALTER TABLE owners ADD COLUMN receivers TEXT NOT NULL DEFAULT '[]';

-- What a run was requested with. All attempts of its moment have the same.
CREATE TABLE run_requests (
  job_id TEXT NOT NULL,
  scheduled_at INTEGER NOT NULL,
  "key" TEXT,            -- of two requests with one key the first counts
  data TEXT              -- JSON; NULL: the job's
) STRICT;

CREATE UNIQUE INDEX run_requests_of_job ON run_requests (job_id, scheduled_at);

CREATE UNIQUE INDEX run_requests_key ON run_requests (job_id, "key") WHERE "key" IS NOT NULL;

-- One row for each event and receiver.
CREATE TABLE notifications (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  "key" TEXT,            -- of an alert; NULL: run:ID
  run_id INTEGER,        -- NULL: an alert
  receiver TEXT NOT NULL,
  job_id TEXT NOT NULL,
  status TEXT NOT NULL,  -- pending | delivered | given_up
  attempts INTEGER NOT NULL,
  ready_at INTEGER,      -- 0: at once; NULL: an earlier one of this job and receiver is pending
  owner INTEGER NOT NULL, -- who delivers it; 0: any scheduler that has the receiver
  created_at INTEGER NOT NULL,
  job_state TEXT,        -- the state of the job after the run: JSON
  job TEXT,              -- the job, if it was removed before the delivery: JSON
  alert TEXT,            -- JSON
  error TEXT             -- why the last attempt failed
) STRICT;

CREATE INDEX notifications_run ON notifications (run_id, receiver) WHERE run_id IS NOT NULL;

CREATE UNIQUE INDEX notifications_alert ON notifications ("key", receiver) WHERE "key" IS NOT NULL;

-- The order of delivery for each job and receiver.
CREATE INDEX notifications_line ON notifications (receiver, job_id, id) WHERE status = 'pending';

CREATE INDEX notifications_ready ON notifications (owner, receiver, ready_at, id) WHERE status = 'pending' AND ready_at IS NOT NULL;

-- They are few, and need their job if it is removed.
CREATE INDEX notifications_given_up ON notifications (job_id) WHERE status = 'given_up';

-- Jobs that are failing or overdue and of which there was an alert: one row for each kind while that lasts.
CREATE TABLE alert_episodes (
  job_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  since INTEGER NOT NULL,
  alerted_at INTEGER NOT NULL,    -- when the last alert was written
  alerted_count INTEGER NOT NULL, -- the count in it
  PRIMARY KEY (job_id, kind)
) STRICT, WITHOUT ROWID;

-- The lines of runs, in pieces. Where the middle of a run's lines was left out, no piece covers it.
CREATE TABLE run_output (
  id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL,
  start INTEGER NOT NULL, -- how many bytes of the run's lines are before it
  size INTEGER NOT NULL,  -- bytes
  at INTEGER NOT NULL,    -- when it was written last
  text TEXT NOT NULL
) STRICT;

CREATE INDEX run_output_of_run ON run_output (run_id, start, size);

-- The progress of running runs.
CREATE TABLE run_progress (
  run_id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  fraction REAL,
  note TEXT NOT NULL
) STRICT;

-- Runs that did not succeed are few, and looked for.
CREATE INDEX runs_unsuccessful ON runs (status, id) WHERE status IN ('failed', 'cancelled', 'skipped');
