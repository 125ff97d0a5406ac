"""The verbs of the storage on PostgreSQL that are about jobs and the queue; `protocol` documents them.

Who decides about a job beside others holds its row in job_state until the commit. A statement that waits for a row sees all other
tables as they were before it waited, so a row is locked by one statement, and what depends on it is read by the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cronactors.instants import LATEST, Millis
from cronactors.storage.postgres.columns import JOB_COLUMNS, PENDING, RUNNING, STATE_COLUMNS, assignments, quoted, types
from cronactors.storage.postgres.execution import Execution, Rows
from cronactors.storage.rows import DueItem, JobRow, JobState, NextTimes, OverdueMoment
from cronactors.storage.values import Row, integer
from cronactors.tags import NO_TAGS, tags_to_find

_ROW = ", ".join(f'{"s" if name in STATE_COLUMNS else "j"}."{name}"' for name in JobRow._fields)
_JOBS_FROM = "FROM @job_state AS s JOIN @jobs AS j ON j.id = s.id"
_LOCK = "FOR NO KEY UPDATE OF s"

# New numbers are in the order of the rows. They are drawn first: to find those of ten thousand new rows would take a join of all with all.
INSERT_JOBS = Rows(
    f"""WITH given AS (SELECT nextval('@jobs_number_seq') AS number, ordered.* FROM (SELECT * FROM new ORDER BY position) AS ordered),
 added AS (INSERT INTO @jobs (number, {quoted(JOB_COLUMNS)}) SELECT number, {quoted(JOB_COLUMNS)} FROM given)
 INSERT INTO @job_state (number, {quoted(STATE_COLUMNS)}) SELECT number, {quoted(STATE_COLUMNS)} FROM given""",
    position="bigint",
    **types(JobRow._fields),
)
UPDATE_JOBS = Rows(
    f"UPDATE @jobs AS j SET {assignments(JOB_COLUMNS)} FROM new WHERE j.id = new.id",
    **types(JOB_COLUMNS),
)
UPDATE_WHOLE_STATES = Rows(
    f"UPDATE @job_state AS s SET {assignments(STATE_COLUMNS)} FROM new WHERE s.id = new.id",
    **types(STATE_COLUMNS),
)
UPDATE_JOB_STATES = Rows(
    f"UPDATE @job_state AS s SET {assignments(JobState._fields)} FROM new WHERE s.id = new.id",
    **types(JobState._fields),
)
SET_RULES = "UPDATE @jobs SET rules = $1 WHERE id = ANY($2)"
DELETE_JOBS = "DELETE FROM @jobs WHERE id = ANY($1)"
JOBS = f"SELECT {_ROW} {_JOBS_FROM} WHERE s.id = ANY($1) ORDER BY s.number"
IDLE_JOBS = f"""SELECT nextval('@run_ids'), {_ROW} {_JOBS_FROM} WHERE s.id = ANY($1)
 AND (SELECT 1 FROM @runs WHERE job_id = s.id AND {PENDING} LIMIT 1) IS NULL
 AND (SELECT 1 FROM @runs WHERE job_id = s.id AND {RUNNING} LIMIT 1) IS NULL"""
JOBS_NAMED = Rows(
    f"""SELECT {_ROW} FROM new CROSS JOIN LATERAL (SELECT * FROM @jobs WHERE user_id = new.user_id AND name = new.name OFFSET 0) AS j
 JOIN @job_state AS s ON s.id = j.id ORDER BY s.number""",
    user_id="text",
    name="text",
)
JOB_NAMES = "SELECT user_id, name FROM @jobs WHERE (user_id, name) > ($1, $2) ORDER BY user_id, name LIMIT $3"
JOBS_OF_ORIGIN = f"SELECT {_ROW} {_JOBS_FROM} WHERE md5(j.origin) = md5($1) AND j.origin = $1 ORDER BY j.number"
LIST_JOBS = f"SELECT j.number, {_ROW} {_JOBS_FROM} WHERE j.number > $1 ORDER BY j.number LIMIT $2"
_FROM_USER_ON = "SELECT * FROM @jobs WHERE (user_id, number) > ($2, $1) AND number > 0 ORDER BY user_id, number LIMIT $3"
LIST_JOBS_OF_USER = f"""SELECT j.number, {_ROW} FROM ({_FROM_USER_ON}) AS j JOIN @job_state AS s ON s.id = j.id WHERE j.user_id = $2
 ORDER BY j.number"""
LIST_JOBS_TAGGED = f"""SELECT j.number, {_ROW} FROM @job_tags AS t JOIN @jobs AS j ON j.number = t.number
 JOIN @job_state AS s ON s.id = j.id WHERE t.tag = $1 AND t.number > $2 ORDER BY t.number LIMIT $3"""
INSERT_TAGS = Rows(
    "INSERT INTO @job_tags (tag, number) SELECT new.tag, j.number FROM new JOIN @jobs AS j ON j.id = new.id",
    tag="text",
    id="text",
)
DELETE_TAGS = "DELETE FROM @job_tags WHERE number = ANY(ARRAY(SELECT number FROM @jobs WHERE id = ANY($1)))"
LATEST_ADDED_AT = """SELECT greatest(
 (SELECT max(at) FROM (SELECT greatest(created_at, anchor_at) AS at FROM @jobs ORDER BY number DESC LIMIT $1) AS j),
 (SELECT max(at) FROM (SELECT CASE WHEN status = 'pending' AND attempt = 1 THEN ready_at END AS at
  FROM @runs ORDER BY id DESC LIMIT $1) AS r))"""

_DUE_MOMENTS = """SELECT NULL::bigint AS run_id, id AS job_id, next_run_at AS due_at, number AS added FROM @job_state
 WHERE enabled = 1 AND held_by IS NULL AND next_run_at <= $1 ORDER BY next_run_at, number LIMIT $2"""
_DUE_RUNS = """SELECT id AS run_id, job_id, ready_at AS due_at, id AS added FROM @runs
 WHERE status = 'pending' AND waits_for IS NULL AND ready_at <= $1 ORDER BY ready_at, id LIMIT $2"""
_SKIP = "FOR NO KEY UPDATE SKIP LOCKED"
DUE_RUNS = f"SELECT run_id, job_id, due_at FROM ({_DUE_RUNS}) AS r ORDER BY due_at, added"
DUE = f"SELECT run_id, job_id, due_at FROM (({_DUE_MOMENTS}) UNION ALL ({_DUE_RUNS})) AS due ORDER BY due_at, added LIMIT $2"
# A lock cannot be taken over a UNION.
DUE_AND_LOCKED = f"""WITH moments AS ({_DUE_MOMENTS} {_SKIP}), pending AS ({_DUE_RUNS} {_SKIP})
 SELECT run_id, job_id, due_at FROM (SELECT * FROM moments UNION ALL SELECT * FROM pending) AS due ORDER BY due_at, added LIMIT $2"""
TRY_TO_LOCK_JOBS = f"SELECT id FROM @job_state WHERE id = ANY($1) ORDER BY number {_SKIP}"
OVERDUE = """SELECT next_run_at, number, id FROM @job_state WHERE enabled = 1 AND held_by IS NULL
 AND (next_run_at, number) > ($1, $2) AND next_run_at <= $3 ORDER BY next_run_at, number LIMIT $4"""
_TO_CANCEL = "overlap = 'cancel_other' AND enabled = 1 AND held_by IS NOT NULL"
JOBS_TO_CANCEL = f"SELECT id FROM @job_state WHERE {_TO_CANCEL} AND next_run_at <= $1 ORDER BY next_run_at LIMIT $2"
NEXT_TIMES = f"""SELECT least(
 (SELECT min(next_run_at) FROM @job_state WHERE enabled = 1 AND held_by IS NULL AND next_run_at IS NOT NULL),
 (SELECT min(ready_at) FROM @runs WHERE status = 'pending' AND waits_for IS NULL)),
 least(
 (SELECT min(next_run_at) FROM @job_state WHERE {_TO_CANCEL} AND next_run_at IS NOT NULL),
 (SELECT min(until_at) FROM @pauses WHERE resumed_at IS NULL AND until_at IS NOT NULL))"""


def next_times_of(row: Row) -> NextTimes:
    """Return the times that `NEXT_TIMES` has read."""
    due, slotless = row
    return NextTimes(None if due is None else integer(due), None if slotless is None else integer(slotless))


_SPEC_OF: Final = [JobRow._fields.index(name) for name in JOB_COLUMNS]
_STATE_OF: Final = [JobRow._fields.index(name) for name in STATE_COLUMNS]


class PostgresJobs(Execution):
    """Jobs: a row in jobs and one in job_state each."""

    left_out = False
    _drawn_ids: Sequence[int] = ()

    def _read_jobs(self, text: str, parameters: Sequence[str | Sequence[str]]) -> list[JobRow]:
        """Read jobs that are decided about; a transaction that writes beside others waits for their rows."""
        if not self._db.locks_rows:
            return list(map(JobRow._make, self._fetch(text, parameters)))
        jobs = list(map(JobRow._make, self._fetch(f"{text} {_LOCK}", parameters)))
        self._db.note_locked(job.id for job in jobs)
        return jobs

    def insert_jobs(self, rows: Sequence[JobRow]) -> None:
        """Add jobs: a row in jobs and one in job_state each."""
        self._write(INSERT_JOBS, [(position, *row) for position, row in enumerate(rows)])
        self._insert_tags(rows)

    def update_jobs(self, rows: Sequence[JobRow]) -> None:
        """Write both rows of each job."""
        last = list({row.id: row for row in rows}.values())
        self._write(UPDATE_JOBS, [[row[index] for index in _SPEC_OF] for row in last])
        self._write(UPDATE_WHOLE_STATES, [[row[index] for index in _STATE_OF] for row in last])
        if last:
            self._execute(DELETE_TAGS, [[row.id for row in last]])
        self._insert_tags(last)

    def _insert_tags(self, rows: Sequence[JobRow]) -> None:
        self._write(INSERT_TAGS, [(tag, row.id) for row in rows if row.tags != NO_TAGS for tag in tags_to_find(row.tags)])

    def update_job_states(self, states: Sequence[JobState]) -> None:
        """Write the state of jobs."""
        self._write(UPDATE_JOB_STATES, states)

    def set_rules(self, ids: Sequence[str], *, rules: str) -> None:
        """Write the release of the rules of jobs."""
        self._execute(SET_RULES, [rules, list(ids)])

    def delete_jobs(self, ids: Sequence[str]) -> None:
        """Delete jobs; PostgreSQL deletes their state and tags with them."""
        self._execute(DELETE_JOBS, [list(ids)])

    def jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """Return jobs by id."""
        return {job.id: job for job in self._read_jobs(JOBS, [list(ids)])} if ids else {}

    def read_jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """Return jobs by id, as they are stored now, and wait for nobody."""
        return {job.id: job for job in map(JobRow._make, self._fetch(JOBS, [list(ids)]))} if ids else {}

    def idle_jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """Return jobs without an open run, by id. The same statement draws ids for runs that start now, which spares a round trip."""
        self._db.lock_jobs(ids)
        found = self._fetch(IDLE_JOBS, [list(ids)]) if ids else []
        self._drawn_ids = [integer(run_id) for run_id, *_ in found]
        return {job.id: job for _, *columns in found for job in [JobRow._make(columns)]}

    def jobs_named(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], JobRow]:
        """Return jobs by user and name."""
        if not names:
            return {}
        users, wanted = JOBS_NAMED.arrays(list(dict.fromkeys(names)))
        jobs = self._read_jobs(JOBS_NAMED.text, [list(map(str, users)), list(map(str, wanted))])
        return {(job.user_id, job.name): job for job in jobs}

    def job_names(self, *, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """Return a page of names."""
        return [(str(user_id), str(name)) for user_id, name in self._fetch(JOB_NAMES, [*after, limit])]

    def jobs_of_origin(self, origin: str) -> list[JobRow]:
        """Return the jobs of an origin."""
        return self._read_jobs(JOBS_OF_ORIGIN, [origin])

    def list_jobs(self, *, after: int, limit: int, user_id: str | None) -> list[tuple[int, JobRow]]:
        """Return a page of jobs."""
        if user_id is None:
            rows = self._fetch(LIST_JOBS, [after, limit])
        else:
            rows = self._fetch(LIST_JOBS_OF_USER, [after, user_id, limit])
        return [(integer(number), JobRow._make(job)) for number, *job in rows]

    def jobs_tagged(self, tag: str, *, after: int, limit: int) -> list[tuple[int, JobRow]]:
        """Return a page of the jobs that have a tag."""
        return [(integer(number), JobRow._make(job)) for number, *job in self._fetch(LIST_JOBS_TAGGED, [tag, after, limit])]

    def latest_added_at(self, *, among: int) -> Millis | None:
        """Return the latest time in the newest jobs and runs."""
        ((at,),) = self._fetch(LATEST_ADDED_AT, [among])
        return None if at is None else integer(at)

    # The queue

    def due(self, *, now: Millis, limit: int, only_runs: bool = False) -> list[DueItem]:
        """Return the first items of the queue.

        Beside others it takes their locks, and leaves out what another transaction has locked: a claim never waits for another one.
        """
        self.left_out = False
        if only_runs or not self._db.locks_rows:
            return list(map(DueItem._make, self._fetch(DUE_RUNS if only_runs else DUE, [now, limit])))
        found = list(map(DueItem._make, self._fetch(DUE_AND_LOCKED, [now, limit])))
        self._db.note_locked(each.job_id for each in found if each.run_id is None)
        of_runs = list({each.job_id for each in found if each.run_id is not None})
        if of_runs:
            held = {str(job_id) for (job_id,) in self._fetch(TRY_TO_LOCK_JOBS, [of_runs])}
            self._db.note_locked(held)
            # A run whose job was removed has no row to lock.
            busy = self.read_jobs([job_id for job_id in of_runs if job_id not in held])
            found = [each for each in found if each.job_id not in busy]
        self.left_out = not found and bool(self._fetch(DUE, [now, 1]))
        return found

    def overdue(self, *, until: Millis, after: OverdueMoment | None, limit: int) -> list[OverdueMoment]:
        """Return a page of moments that are due."""
        at, number = (-LATEST, 0) if after is None else after[:2]
        return list(map(OverdueMoment._make, self._fetch(OVERDUE, [at, number, until, limit])))

    def next_times(self) -> NextTimes:
        """Return the next times of the queue, and of `jobs_to_cancel` and `pauses`."""
        return next_times_of(self._fetch(NEXT_TIMES)[0])

    def jobs_to_cancel(self, *, now: Millis, limit: int) -> list[str]:
        """Return jobs whose open run is to be cancelled."""
        return [str(job_id) for (job_id,) in self._fetch(JOBS_TO_CANCEL, [now, limit])]
