-- Schema 2: the words of the documentation, and what a job and a run have to remember.

ALTER TABLE schedulers RENAME TO owners;
ALTER TABLE owners RENAME COLUMN born TO process_start;
ALTER TABLE owners RENAME COLUMN seen_at TO heartbeat_at;
ALTER TABLE runs RENAME COLUMN cancel_asked TO cancel_requested;
UPDATE runs SET waits_for = 'crash_loop' WHERE waits_for = 'suspects';

-- Facts about the file as a whole, each a JSON value.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

INSERT INTO meta SELECT 'clock_set_back', json_object('at', heartbeat_at, 'owner', pid) FROM owners
  WHERE machine = 'the clock was set back' ORDER BY heartbeat_at DESC LIMIT 1;
DELETE FROM owners WHERE machine = 'the clock was set back';

-- The file that lists the jobs of an origin, relative to the folder of the database where that is possible.
CREATE TABLE origins (name TEXT PRIMARY KEY, file TEXT NOT NULL) STRICT, WITHOUT ROWID;

INSERT INTO origins SELECT DISTINCT origin, origin FROM jobs WHERE origin LIKE '/%';

-- Until when the moments of a cron job are decided: seconds of its local clock, which new rules of its zone do not move.
ALTER TABLE jobs ADD COLUMN decided_local INTEGER;

-- The release of the zone rules, and of our parser, by which next_run_at was computed.
ALTER TABLE job_specs ADD COLUMN rules TEXT NOT NULL DEFAULT '';

ALTER TABLE job_specs ADD COLUMN executor_options TEXT NOT NULL DEFAULT '{}';

-- The other end of the moments that a row stands for; NULL: it stands for one.
ALTER TABLE runs ADD COLUMN range_at INTEGER;
