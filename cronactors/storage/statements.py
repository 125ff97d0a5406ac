"""All SQL of the storage in SQLite. A `RowStatement` is carried out for rows, any other text by itself.

A scheduler may have a million jobs, so each statement has to use an index; tests compare their plans. Everything unusual here
makes SQLite do so: the bare UNION ALL, the repeated WHERE clauses of partial indexes, CROSS JOIN and ``+manual``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cronactors.storage.row_statement import RowStatement
from cronactors.storage.rows import SPEC, JobRow, JobState, OwnerRow, RunRow


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _parameters(names: Sequence[str]) -> str:
    return ", ".join(f":{name}" for name in names)


def _assignments(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}" = :{name}' for name in names)


def last_number(table: str, key: str) -> str:
    """Return a query for the largest number that was ever given.

    SQLite notes it for AUTOINCREMENT. The rows count as well, since that note may be damaged.
    """
    noted = f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'"
    return f"SELECT max(coalesce((SELECT max({key}) FROM {table}), 0), coalesce(({noted}), 0))"


JOB_COLUMNS: Final = JobRow._fields[:SPEC]
"""Fields of a `JobRow` in the table jobs, which a run changes."""
SPEC_COLUMNS: Final = JobRow._fields[SPEC:]
"""Fields of a `JobRow` in the table job_specs, which no run changes."""
_STATE = [name for name in JobState._fields if name != "id"]
_JOBS_FROM = f"{_quoted(JobRow._fields)} FROM jobs CROSS JOIN job_specs ON job_specs.number = jobs.number"
_JOBS = f"SELECT {_JOBS_FROM}"
_RUNS = f"SELECT {_quoted(RunRow._fields)} FROM runs"
_HAS_NO_OPEN_RUN = """NOT EXISTS (SELECT 1 FROM runs WHERE job_id = jobs.id AND status = 'pending')
 AND NOT EXISTS (SELECT 1 FROM runs WHERE job_id = jobs.id AND status = 'running')"""

# Jobs

LAST_JOB = last_number("jobs", "number")
INSERT_JOB = RowStatement(f"INSERT INTO jobs (number, {_quoted(JOB_COLUMNS)}) VALUES (:number, {_parameters(JOB_COLUMNS)})")
INSERT_SPEC = RowStatement(
    f"INSERT INTO job_specs (number, {_quoted(SPEC_COLUMNS)}) VALUES (:number, {_parameters(SPEC_COLUMNS)})"
)
UPDATE_JOB = RowStatement(f"UPDATE jobs SET {_assignments(JOB_COLUMNS)} WHERE id = :old_id")
UPDATE_SPEC = RowStatement(
    f"UPDATE job_specs SET {_assignments(SPEC_COLUMNS)} WHERE number = (SELECT number FROM jobs WHERE id = :old_id)"
)
UPDATE_JOB_STATE = RowStatement(f"UPDATE jobs SET {_assignments(_STATE)} FROM new WHERE jobs.id = :id")
SET_RULES = RowStatement("UPDATE job_specs SET rules = :rules WHERE number = (SELECT number FROM jobs WHERE id = :id)")
INCOMPLETE_JOB = """SELECT number FROM jobs WHERE number NOT IN (SELECT number FROM job_specs)
UNION ALL SELECT number FROM job_specs WHERE number NOT IN (SELECT number FROM jobs) LIMIT 1"""
DELETE_JOB = RowStatement("DELETE FROM jobs WHERE id = :id")
JOBS = RowStatement(f"{_JOBS} WHERE jobs.id IN (SELECT :id FROM new)")
IDLE_JOBS = RowStatement(f"{_JOBS} WHERE jobs.id IN (SELECT :id FROM new) AND {_HAS_NO_OPEN_RUN}")
IDS_NAMED = RowStatement("SELECT (SELECT id FROM jobs WHERE jobs.user_id = :user_id AND jobs.name = :name) FROM new")
JOBS_OF_ORIGIN = f"{_JOBS} WHERE origin = ?"
JOB_NAMES = "SELECT user_id, name FROM jobs WHERE (user_id, name) > (?, ?) ORDER BY user_id, name LIMIT ?"
LIST_JOBS = f"SELECT jobs.number, {_JOBS_FROM} WHERE jobs.number > ? ORDER BY jobs.number LIMIT ?"
LIST_JOBS_OF_USER = f"SELECT jobs.number, {_JOBS_FROM} WHERE jobs.number > ? AND user_id = ? ORDER BY jobs.number LIMIT ?"
LIST_JOBS_TAGGED = f"""SELECT jobs.number, {_quoted(JobRow._fields)} FROM job_tags
 CROSS JOIN jobs ON jobs.number = job_tags.number CROSS JOIN job_specs ON job_specs.number = jobs.number
 WHERE tag = ? AND job_tags.number > ? ORDER BY job_tags.number LIMIT ?"""
INSERT_TAG = RowStatement("INSERT INTO job_tags (tag, number) SELECT :tag, number FROM jobs WHERE id = :id")
DELETE_TAGS = RowStatement("DELETE FROM job_tags WHERE number = (SELECT number FROM jobs WHERE id = :id)")
LATEST_ADDED_AT = """SELECT max(at) FROM
 (SELECT max(created_at, anchor_at) AS at FROM job_specs ORDER BY number DESC LIMIT :among)
UNION ALL SELECT max(at) FROM
 (SELECT iif(status = 'pending' AND attempt = 1, ready_at, NULL) AS at FROM runs ORDER BY id DESC LIMIT :among)"""

# The queue

_DUE_RUNS = "SELECT id, job_id, ready_at, id FROM runs WHERE status = 'pending' AND waits_for IS NULL AND ready_at <= :now"
DUE_RUNS = f"{_DUE_RUNS} ORDER BY ready_at, id LIMIT :limit"
# We ask for jobs and runs in one bare UNION ALL, because then SQLite merges two walks along indexes, and stops at the limit.
# Inside a subselect it would first sort everything that is due: 3,142 us instead of 47 us.
DUE = f"""SELECT NULL AS run_id, id AS job_id, next_run_at AS due_at, number AS added FROM jobs
 WHERE enabled = 1 AND held_by IS NULL AND next_run_at <= :now
UNION ALL {_DUE_RUNS} ORDER BY due_at, added LIMIT :limit"""

OVERDUE = """SELECT next_run_at, number, id FROM jobs WHERE enabled = 1 AND held_by IS NULL
 AND (next_run_at, number) > (:at, :number) AND next_run_at <= :until ORDER BY next_run_at, number LIMIT :limit"""

_TO_CANCEL = "overlap = 'cancel_other' AND enabled = 1 AND held_by IS NOT NULL"
JOBS_TO_CANCEL = f"SELECT id FROM jobs WHERE {_TO_CANCEL} AND next_run_at <= ? ORDER BY next_run_at LIMIT ?"
NEXT_TIMES = f"""SELECT
 (SELECT min(next_run_at) FROM jobs WHERE enabled = 1 AND held_by IS NULL AND next_run_at IS NOT NULL),
 (SELECT min(ready_at) FROM runs WHERE status = 'pending' AND waits_for IS NULL),
 (SELECT min(next_run_at) FROM jobs WHERE {_TO_CANCEL} AND next_run_at IS NOT NULL),
 (SELECT min(until_at) FROM pauses WHERE resumed_at IS NULL AND until_at IS NOT NULL)"""

# Runs

LAST_RUN = last_number("runs", "id")
RUN_IDS_FROM = "SELECT id FROM runs WHERE id >= ?"
INSERT_RUN = RowStatement(f"""INSERT INTO runs ({_quoted(RunRow._fields)}) VALUES ({_parameters(RunRow._fields)})
 ON CONFLICT (job_id, scheduled_at, manual, attempt) DO NOTHING""")
START_PENDING_RUN = RowStatement(
    "UPDATE runs SET status = 'running', owner = :owner, started_at = :started_at WHERE id = :id AND status = 'pending'"
)
SET_WAITS_FOR = RowStatement("UPDATE runs SET waits_for = :waits_for WHERE id = :id AND status = 'pending'")
MARK_RUN = RowStatement("""UPDATE runs SET cause = coalesce(:cause, cause),
 cancel_requested = max(cancel_requested, :cancel_requested) WHERE id = :id AND status = 'running'""")
STORE_FINISH = RowStatement("""UPDATE runs SET status = :status, cause = :cause,
 completed_at = max(:completed_at, coalesce(started_at, 0)), session_id = :session_id, result = :result,
 error = :error, result_data = :result_data, waits_for = NULL WHERE id = :id AND status = :expected_status""")
ADVANCE_PENDING = """UPDATE runs SET ready_at = iif(attempt = 1, :now, max(:now, ready_at - :by))
 WHERE status = 'pending' AND ready_at > :now"""
RUNS = RowStatement(f"{_RUNS} WHERE runs.id IN (SELECT :id FROM new)")
PENDING_RUNS_OF_JOBS = RowStatement(f"{_RUNS} WHERE runs.job_id IN (SELECT :job_id FROM new) AND status = 'pending'")
RUNNING_RUNS_OF_JOBS = RowStatement(f"{_RUNS} WHERE runs.job_id IN (SELECT :job_id FROM new) AND status = 'running'")
RUNNING = f"{_RUNS} WHERE status = 'running'"
RUNNING_OF_OWNER = f"{_RUNS} WHERE status = 'running' AND owner = ?"
RUNNING_OWNERS = "SELECT owner FROM runs WHERE status = 'running'"
COUNT_RUNNING = "SELECT count(*) FROM runs WHERE status = 'running'"
BUSY_SESSIONS = RowStatement(
    "SELECT session FROM runs WHERE status = 'running' AND session IN (SELECT :session FROM new) AND session IS NOT NULL"
)
FIRST_WAITING_RUN = "SELECT id FROM runs WHERE status = 'pending' AND waits_for = ? ORDER BY ready_at, id LIMIT 1"
LIST_RUNS = f"{_RUNS} WHERE id < ? ORDER BY id DESC LIMIT ?"
LIST_RUNS_OF_JOB = f"""{_RUNS} WHERE job_id = ? AND (scheduled_at, manual, attempt) < (?, ?, ?)
ORDER BY scheduled_at DESC, manual DESC, attempt DESC LIMIT ?"""
LAST_RUN_UNTIL = f"""{_RUNS} WHERE job_id = ? AND scheduled_at <= ? AND +manual = 0
ORDER BY scheduled_at DESC, manual DESC, attempt DESC LIMIT 1"""
FIRST_RUN_AFTER = f"""{_RUNS} WHERE job_id = ? AND scheduled_at > ? AND +manual = 0
ORDER BY scheduled_at, manual, attempt LIMIT 1"""

# The fast path of a run whose job nothing else concerns: two statements start it, two finish it, and nothing is read in between

INSERT_STARTED_RUN = RowStatement("""INSERT INTO runs (id, job_id, job_name, user_id, scheduled_at, ready_at, coalesced, range_at,
  owner, started_at, "trigger", manual, attempt, failures, status, cancel_requested, session_id)
 SELECT :id, :job_id, :job_name, :user_id, :scheduled_at, :ready_at, :coalesced, :range_at,
  :owner, :started_at, 'schedule', 0, 1, 0, 'running', 0, '' FROM new WHERE true
 ON CONFLICT (job_id, scheduled_at, manual, attempt) DO NOTHING""")
HOLD_JOB = RowStatement("""UPDATE jobs SET next_run_at = :next_run_at, decided_local = :decided_local, held_by = :held_by,
 last_run_at = :last_run_at FROM new WHERE jobs.id = :id""")
STORE_PLAIN_FINISH = RowStatement("""UPDATE runs SET status = 'success', cause = NULL,
 completed_at = max(:completed_at, coalesce(started_at, 0)), session_id = :session_id, result = :result,
 result_data = :result_data, error = NULL FROM new WHERE runs.id = :run_id AND status = 'running' AND runs.owner = :owner AND cancel_requested = 0""")
RELEASE_JOB = RowStatement(f"""UPDATE jobs SET held_by = NULL, last_error = NULL, enabled = jobs.next_run_at IS NOT NULL FROM new
 WHERE jobs.id = :job_id AND held_by = :run_id AND jobs.next_run_at IS :next_run_at
 AND enabled = 1 AND crashes = 0 AND consecutive_failures = 0 AND delete_after_run = 0 AND {_HAS_NO_OPEN_RUN}""")

# Owners, facts about the file, and where lists of jobs come from

INSERT_OWNER = f"INSERT INTO owners ({_quoted(OwnerRow._fields)}) VALUES ({', '.join('?' * len(OwnerRow._fields))})"
OWNERS = f"SELECT {_quoted(OwnerRow._fields)} FROM owners"
OWNER = f"{OWNERS} WHERE id = ?"
RENEW_LEASE = """UPDATE owners SET heartbeat_at = :now, lease_until = :until
 WHERE id = :owner AND (lease_until < :unless_later_than OR heartbeat_at > :now)"""
DELETE_OWNER = RowStatement("DELETE FROM owners WHERE id = :id")

META = "SELECT value FROM meta WHERE key = ?"
INSERT_META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
DELETE_META = "DELETE FROM meta WHERE key = ?"

ORIGINS = (
    "SELECT origin, (SELECT file FROM origins WHERE name = origin), count(*) FROM jobs WHERE origin IS NOT NULL GROUP BY origin"
)
INSERT_ORIGIN = "INSERT INTO origins (name, file) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET file = excluded.file"
DELETE_ORIGIN = "DELETE FROM origins WHERE name = ?"
