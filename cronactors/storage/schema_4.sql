-- Schema 4: pauses that end by themselves, and what a list says of its jobs.

-- Reserved by schema 3, and never written.
ALTER TABLE jobs DROP COLUMN paused_until;
ALTER TABLE jobs DROP COLUMN pause_note;

-- The last pause of each job that was ever paused.
CREATE TABLE pauses (
  job_id TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  paused_at INTEGER NOT NULL,
  until_at INTEGER,      -- when it ends by itself; NULL: when a user resumes the job
  resumed_at INTEGER,    -- when it ended; NULL: it lasts
  note TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX pauses_end ON pauses (until_at) WHERE resumed_at IS NULL AND until_at IS NOT NULL;

-- Whether the list that names the job says that it is enabled; NULL: it does not say.
ALTER TABLE job_specs ADD COLUMN listed_enabled INTEGER;
