-- Schema 1. *_at: whole milliseconds since 1970 UTC. Text is compared by bytes, whatever the locale of the server.

-- One row. A release that knows no schema from min_reader on does not touch the tables.
CREATE TABLE @version (version int NOT NULL, min_reader int NOT NULL);

INSERT INTO @version VALUES (1, 1);

-- Facts about the store as a whole, each a JSON value.
CREATE TABLE @meta ("key" text COLLATE "C" PRIMARY KEY, value text NOT NULL);

CREATE TABLE @owners (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  machine text NOT NULL, pid bigint NOT NULL, process_start text NOT NULL,
  heartbeat_at bigint NOT NULL, lease_until bigint NOT NULL,
  receivers text NOT NULL DEFAULT '[]',  -- the names of the receivers that it has: a JSON list
  total bigint                           -- how many runs may be running over all schedulers, as it was told; NULL: any number
);

-- The owners that are stopping.
CREATE TABLE @stop_marks (owner bigint PRIMARY KEY);

CREATE TABLE @origins (name text COLLATE "C" PRIMARY KEY, file text NOT NULL);

CREATE TABLE @jobs (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id text COLLATE "C" NOT NULL UNIQUE,
  user_id text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  origin text COLLATE "C",
  schedule text NOT NULL,
  timezone text NOT NULL,
  anchor_at bigint NOT NULL,
  max_retries bigint NOT NULL,
  timeout_secs float8 NOT NULL,
  session_mode text NOT NULL,
  misfire text NOT NULL,
  delay_ms bigint,
  created_at bigint NOT NULL,
  rules text NOT NULL,            -- the release of the zone rules, and of our parser, by which next_run_at was computed
  description text NOT NULL,
  tags text NOT NULL,             -- a JSON list
  history text NOT NULL,          -- how much of it is kept, where that differs: JSON
  executor_options text NOT NULL,
  data text,                      -- JSON; NULL: none
  prompt text NOT NULL,
  UNIQUE (user_id, name)
);

CREATE INDEX jobs_of_user ON @jobs (user_id, number);

-- An origin may be longer than an entry of an index may be.
CREATE INDEX jobs_origin ON @jobs (md5(origin)) WHERE origin IS NOT NULL;

CREATE INDEX jobs_history ON @jobs (number) WHERE history <> '{}';

-- What each run changes, apart from what users wrote. An update writes an entry into every index of its table, so there are few.
CREATE TABLE @job_state (
  id text COLLATE "C" PRIMARY KEY REFERENCES @jobs (id) ON DELETE CASCADE,
  number bigint NOT NULL,
  overlap text NOT NULL,
  delete_after_run bigint NOT NULL,
  enabled bigint NOT NULL,
  crashes bigint NOT NULL,
  next_run_at bigint,    -- first moment not decided yet; NULL: none left
  decided_local bigint,  -- until when the moments of a cron job are decided: seconds of its local clock
  held_by bigint,        -- the open run that must finish first
  last_run_at bigint,
  last_error text,
  consecutive_failures bigint NOT NULL,
  pruned_until bigint    -- the latest moment among its pruned rows: moments up to it are decided
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);

CREATE INDEX job_state_due ON @job_state (next_run_at, number) WHERE enabled = 1 AND held_by IS NULL AND next_run_at IS NOT NULL;

-- Whose open run is to be cancelled when the next moment comes.
CREATE INDEX job_state_cancelling ON @job_state (next_run_at)
  WHERE overlap = 'cancel_other' AND enabled = 1 AND held_by IS NOT NULL AND next_run_at IS NOT NULL;

-- The tags of jobs, to find jobs by.
CREATE TABLE @job_tags (
  tag text COLLATE "C" NOT NULL,
  number bigint NOT NULL REFERENCES @jobs (number) ON DELETE CASCADE,
  PRIMARY KEY (tag, number)
);

CREATE INDEX job_tags_of_job ON @job_tags (number);

CREATE SEQUENCE @run_ids;

-- No foreign key: history outlives its job.
CREATE TABLE @runs (
  id bigint PRIMARY KEY,
  job_id text COLLATE "C" NOT NULL,
  job_name text NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  "trigger" text NOT NULL,
  manual bigint NOT NULL,
  scheduled_at bigint NOT NULL,
  attempt bigint NOT NULL,
  ready_at bigint NOT NULL,
  failures bigint NOT NULL,
  coalesced bigint NOT NULL,
  range_at bigint,       -- the other end of the moments that a row stands for; NULL: it stands for one
  session text COLLATE "C",
  owner bigint,
  cancel_requested bigint NOT NULL,
  started_at bigint,
  status text COLLATE "C" NOT NULL,
  cause text COLLATE "C",
  completed_at bigint,
  session_id text NOT NULL,
  result text,
  error text,
  waits_for text COLLATE "C",  -- NULL | session:USER | job:JOB | crash_loop | pause
  result_data text             -- what the executor returned beside its summary: JSON
) WITH (fillfactor = 80, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.02);

-- Each moment once; also the order of a job's history.
CREATE UNIQUE INDEX runs_of_job ON @runs (job_id, scheduled_at, manual, attempt);

-- What may start, and each line of waiting runs.
CREATE INDEX runs_queue ON @runs (waits_for, ready_at, id) WHERE status = 'pending';

CREATE INDEX runs_pending ON @runs (job_id) WHERE status = 'pending';

CREATE INDEX runs_running ON @runs (job_id, owner) WHERE status = 'running';

CREATE UNIQUE INDEX runs_session ON @runs (session) WHERE status = 'running' AND session IS NOT NULL;

CREATE INDEX runs_unsuccessful ON @runs (status, id) WHERE status IN ('failed', 'cancelled', 'skipped');

-- What a run was requested with. All attempts of its moment have the same.
CREATE TABLE @run_requests (
  job_id text COLLATE "C" NOT NULL,
  scheduled_at bigint NOT NULL,
  "key" text COLLATE "C",  -- of two requests with one key the first counts
  data text,               -- JSON; NULL: the job's
  PRIMARY KEY (job_id, scheduled_at)
);

CREATE UNIQUE INDEX run_requests_key ON @run_requests (job_id, "key") WHERE "key" IS NOT NULL;

-- One row for each event and receiver.
CREATE TABLE @notifications (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "key" text COLLATE "C",  -- of an alert; NULL: run:ID
  run_id bigint,           -- NULL: an alert
  receiver text COLLATE "C" NOT NULL,
  job_id text COLLATE "C" NOT NULL,
  created_at bigint NOT NULL,
  status text COLLATE "C" NOT NULL,  -- pending | delivered | given_up
  attempts bigint NOT NULL,
  ready_at bigint,         -- 0: at once; NULL: an earlier one of this job and receiver is pending
  owner bigint NOT NULL,   -- who delivers it; 0: any scheduler that has the receiver
  job_state text,          -- the state of the job after the run: JSON
  job text,                -- the job, if it was removed before the delivery: JSON
  alert text,              -- JSON
  error text               -- why the last attempt failed
) WITH (fillfactor = 80, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.02);

CREATE INDEX notifications_run ON @notifications (run_id, receiver) WHERE run_id IS NOT NULL;

CREATE UNIQUE INDEX notifications_alert ON @notifications ("key", receiver) WHERE "key" IS NOT NULL;

-- The order of delivery for each job and receiver.
CREATE INDEX notifications_line ON @notifications (receiver, job_id, id) WHERE status = 'pending';

CREATE INDEX notifications_ready ON @notifications (owner, receiver, ready_at, id)
  WHERE status = 'pending' AND ready_at IS NOT NULL;

CREATE INDEX notifications_given_up ON @notifications (job_id) WHERE status = 'given_up';

-- Jobs that are failing or overdue and of which there was an alert: one row for each kind while that lasts.
CREATE TABLE @alert_episodes (
  job_id text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  since bigint NOT NULL,
  alerted_at bigint NOT NULL,
  alerted_count bigint NOT NULL,
  PRIMARY KEY (job_id, kind)
);

-- The lines of runs, in pieces. Where the middle of a run's lines was left out, no piece covers it.
CREATE TABLE @run_output (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id bigint NOT NULL,
  start bigint NOT NULL, -- how many bytes of the run's lines are before it
  size bigint NOT NULL,  -- bytes
  at bigint NOT NULL,    -- when it was written last
  text text NOT NULL
);

CREATE INDEX run_output_of_run ON @run_output (run_id, start, size);

-- The progress of running runs.
CREATE TABLE @run_progress (
  run_id bigint PRIMARY KEY,
  at bigint NOT NULL,
  fraction float8,
  note text NOT NULL
);
