-- Schema 2: pauses that end by themselves, and what a list says of its jobs.

-- The last pause of each job that was ever paused.
CREATE TABLE @pauses (
  job_id text COLLATE "C" PRIMARY KEY REFERENCES @jobs (id) ON DELETE CASCADE,
  paused_at bigint NOT NULL,
  until_at bigint,       -- when it ends by itself; NULL: when a user resumes the job
  resumed_at bigint,     -- when it ended; NULL: it lasts
  note text NOT NULL
);

CREATE INDEX pauses_end ON @pauses (until_at) WHERE resumed_at IS NULL AND until_at IS NOT NULL;

-- Whether the list that names the job says that it is enabled; NULL: it does not say.
ALTER TABLE @jobs ADD COLUMN listed_enabled bigint;
