"""The verbs of the storage on PostgreSQL that are about runs; `protocol` documents them.

Ids of runs are drawn inside the transaction, while it holds the row of the job: so for one job they grow in the order of its
transactions, whatever process they come from, and an id serves as a fencing token.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from cronactors.instants import LATEST, Millis
from cronactors.storage.postgres.columns import PENDING, RUNNING, quoted, types
from cronactors.storage.postgres.execution import Rows
from cronactors.storage.postgres.jobs import PostgresJobs
from cronactors.storage.rows import Claimed, PlainFinish, RunFinish, RunRow
from cronactors.storage.values import integer

_MAX_ID: Final = 2**63 - 1

_ROW = quoted(RunRow._fields)
_RUNS = f"SELECT {_ROW} FROM @runs"
_NEW = RunRow._fields[1:]
_KEY = "job_id, scheduled_at, manual, attempt"

INSERT_RUNS = Rows(
    f"""INSERT INTO @runs (id, {quoted(_NEW)}) SELECT nextval('@run_ids'), {quoted(_NEW)} FROM new ORDER BY position
 ON CONFLICT ({_KEY}) DO NOTHING RETURNING {_KEY}, id""",
    position="bigint",
    **types(_NEW),
)
NEW_RUN_IDS = "SELECT nextval('@run_ids') FROM generate_series(1, $1)"
START_PENDING_RUNS = "UPDATE @runs SET status = 'running', owner = $1, started_at = $2 WHERE id = ANY($3) AND status = 'pending'"
SET_WAITS_FOR = Rows(
    "UPDATE @runs AS r SET waits_for = new.waits_for FROM new WHERE r.id = new.id AND r.status = 'pending'",
    id="bigint",
    waits_for="text",
)
MARK_RUNS = """UPDATE @runs SET cause = coalesce($1, cause), cancel_requested = greatest(cancel_requested, $2)
 WHERE id = ANY($3) AND status = 'running'"""
STORE_FINISHES = Rows(
    """UPDATE @runs AS r SET status = new.status, cause = new.cause,
 completed_at = greatest(new.completed_at, coalesce(r.started_at, 0)), session_id = new.session_id, result = new.result,
 error = new.error, result_data = new.result_data, waits_for = NULL FROM new
 WHERE r.id = new.id AND r.status = new.expected_status RETURNING r.id""",
    **types(RunFinish._fields, id="bigint"),
)
ADVANCE_PENDING = f"""UPDATE @runs SET ready_at = CASE WHEN attempt = 1 THEN $1 ELSE greatest($1, ready_at - $2) END
 WHERE {PENDING} AND ready_at > $1"""
RUNS = f"{_RUNS} WHERE id = ANY($1) ORDER BY id"
OPEN_RUNS = f"""SELECT {_ROW} FROM (({_RUNS} WHERE job_id = ANY($1) AND {PENDING})
 UNION ALL ({_RUNS} WHERE job_id = ANY($1) AND {RUNNING})) AS opened ORDER BY ready_at, id"""
RUNNING_RUNS = f"{_RUNS} WHERE {RUNNING}"
RUNNING_OF_OWNER = f"{_RUNS} WHERE {RUNNING} AND owner = $1"
ANY_RUNNING = f"SELECT 1 FROM @runs WHERE {RUNNING} AND owner <> ALL($1) LIMIT 1"
COUNT_RUNNING = f"SELECT count(*) FROM @runs WHERE {RUNNING}"
BUSY_SESSIONS = "SELECT session FROM @runs WHERE status = 'running' AND session = ANY($1) AND session IS NOT NULL"
FIRST_WAITING_RUN = """SELECT id FROM @runs WHERE status = 'pending' AND waits_for = $1 AND waits_for IS NOT NULL
 ORDER BY ready_at, id LIMIT 1"""
LIST_RUNS = f"{_RUNS} WHERE id < $1 ORDER BY id DESC LIMIT $2"
LIST_RUNS_OF_JOB = f"""{_RUNS} WHERE job_id = $1 AND (scheduled_at, manual, attempt) < ($2, $3, $4)
 ORDER BY scheduled_at DESC, manual DESC, attempt DESC LIMIT $5"""
LAST_RUN_UNTIL = f"""{_RUNS} WHERE job_id = $1 AND scheduled_at <= $2 AND manual = 0
 ORDER BY scheduled_at DESC, manual DESC, attempt DESC LIMIT 1"""
FIRST_RUN_AFTER = f"""{_RUNS} WHERE job_id = $1 AND scheduled_at > $2 AND manual = 0
 ORDER BY scheduled_at, manual, attempt LIMIT 1"""

# The fast path of a run whose job nothing else concerns

INSERT_STARTED_RUNS = Rows(
    f"""WITH given AS (SELECT * FROM new),
 added AS (INSERT INTO @runs (id, job_id, job_name, user_id, scheduled_at, ready_at, coalesced, range_at,
  owner, started_at, "trigger", manual, attempt, failures, status, cancel_requested, session_id)
  SELECT id, job_id, job_name, user_id, scheduled_at, ready_at, coalesced, range_at,
  owner, started_at, 'schedule', 0, 1, 0, 'running', 0, '' FROM given ON CONFLICT ({_KEY}) DO NOTHING RETURNING id),
 held AS (UPDATE @job_state AS s SET next_run_at = given.next_run_at, decided_local = given.decided_local, held_by = given.held_by,
  last_run_at = given.started_at FROM given WHERE s.id = given.job_id AND given.id = ANY(ARRAY(SELECT id FROM added)))
 SELECT id FROM added""",
    **types(
        ["id", "job_id", "job_name", "user_id", "scheduled_at", "ready_at", "coalesced", "range_at", "owner", "started_at"],
        id="bigint",
    ),
    next_run_at="bigint",
    decided_local="bigint",
    held_by="bigint",
)
STORE_PLAIN_FINISHES = Rows(
    f"""WITH given AS (SELECT * FROM new),
 plain AS (SELECT given.* FROM given JOIN @runs AS r ON r.id = given.run_id JOIN @job_state AS s ON s.id = given.job_id
  WHERE r.status = 'running' AND r.owner = given.owner AND r.cancel_requested = 0
  AND s.held_by = given.run_id AND s.next_run_at IS NOT DISTINCT FROM given.next_run_at
  AND s.enabled = 1 AND s.crashes = 0 AND s.consecutive_failures = 0 AND s.delete_after_run = 0
  AND (SELECT 1 FROM @runs WHERE job_id = s.id AND {PENDING} LIMIT 1) IS NULL
  AND (SELECT 1 FROM @runs WHERE job_id = s.id AND {RUNNING} AND id <> given.run_id LIMIT 1) IS NULL),
 all_are AS MATERIALIZED (SELECT (SELECT count(*) FROM plain) = (SELECT count(*) FROM given) AS plain),
 finished AS (UPDATE @runs AS r SET status = 'success', cause = NULL,
  completed_at = greatest(plain.completed_at, coalesce(r.started_at, 0)), session_id = plain.session_id, result = plain.result,
  result_data = plain.result_data, error = NULL FROM plain WHERE r.id = plain.run_id AND (SELECT all_are.plain FROM all_are)),
 released AS (UPDATE @job_state AS s SET held_by = NULL, last_error = NULL,
  enabled = CASE WHEN s.next_run_at IS NULL THEN 0 ELSE 1 END FROM plain
  WHERE s.id = plain.job_id AND (SELECT all_are.plain FROM all_are))
 SELECT 1 FROM all_are WHERE all_are.plain""",
    **types(PlainFinish._fields),
    owner="bigint",
)


class PostgresRuns(PostgresJobs):
    """Runs. Those of a job are changed only by a transaction that holds the row of the job, or writes alone."""

    def insert_runs(self, rows: Sequence[RunRow]) -> list[int | None]:
        """Add runs."""
        self._drawn_ids = ()
        added = self._rows_of(INSERT_RUNS, [(position, *row[1:]) for position, row in enumerate(rows)])
        ids = {key: integer(run_id) for *key_values, run_id in added for key in [tuple(key_values)]}
        return [ids.pop((row.job_id, row.scheduled_at, row.manual, row.attempt), None) for row in rows]

    def new_run_ids(self, count: int) -> Sequence[int]:
        """Return ids for runs: those that were drawn with `idle_jobs`, as long as no run was added meanwhile."""
        if count <= len(self._drawn_ids):
            ids, self._drawn_ids = self._drawn_ids[:count], ()
            return ids
        return [integer(run_id) for (run_id,) in self._fetch(NEW_RUN_IDS, [count])] if count else []

    def insert_started_runs(self, claims: Sequence[Claimed]) -> list[Claimed]:
        """Add running runs, and let them hold their jobs."""
        rows = [
            (
                *(run.id, run.job_id, run.job_name, run.user_id, run.scheduled_at, run.ready_at, run.coalesced, run.range_at),
                *(run.owner, run.started_at, claimed.next_run_at, claimed.decided_local, claimed.held_by),
            )
            for claimed in claims
            for run in [claimed.run]
        ]
        added = {run_id for (run_id,) in self._rows_of(INSERT_STARTED_RUNS, rows)}
        return [claimed for claimed in claims if claimed.run.id in added]

    def start_pending_runs(self, ids: Sequence[int], *, owner: int, now: Millis) -> None:
        """Start pending runs."""
        self._execute(START_PENDING_RUNS, [owner, now, list(ids)])

    def set_waits_for(self, waits: Sequence[tuple[int, str | None]]) -> int:
        """Set ``waits_for`` of pending runs."""
        return self._write(SET_WAITS_FOR, waits)

    def store_finishes(self, finishes: Sequence[RunFinish]) -> list[bool]:
        """Finish runs; of two finishes of one run the first counts."""
        first: dict[int, RunFinish] = {}
        for finish in finishes:
            first.setdefault(finish.id, finish)
        took_effect = {run_id for (run_id,) in self._rows_of(STORE_FINISHES, list(first.values()))}
        return [finish.id in took_effect and first[finish.id] is finish for finish in finishes]

    def store_plain_finishes(self, finishes: Sequence[PlainFinish], *, owner: int) -> bool:
        """Finish runs in one statement, which changes nothing unless all of them meet the conditions."""
        if not finishes:
            return True
        self._db.lock_jobs([finish.job_id for finish in finishes])
        return any(self._rows_of(STORE_PLAIN_FINISHES, [(*finish, owner) for finish in finishes]))

    def mark_runs(self, ids: Sequence[int], *, cause: str | None = None, cancel_requested: bool = False) -> None:
        """Mark running runs."""
        self._execute(MARK_RUNS, [cause, int(cancel_requested), list(ids)])

    def advance_pending(self, *, now: Millis, by: Millis) -> None:
        """Move pending runs earlier."""
        self._execute(ADVANCE_PENDING, [now, by])

    def runs(self, ids: Sequence[int]) -> dict[int, RunRow]:
        """Return runs by id. An id that a bigint cannot hold has no run."""
        keys = [run_id for run_id in ids if 0 <= run_id <= _MAX_ID]
        return {run.id: run for run in map(RunRow._make, self._fetch(RUNS, [keys]))} if keys else {}

    def open_runs(self, job_ids: Sequence[str]) -> list[RunRow]:
        """Return pending and running runs of jobs. Each has a partial index of its own, so there are two queries in one."""
        return list(map(RunRow._make, self._fetch(OPEN_RUNS, [list(job_ids)]))) if job_ids else []

    def running(self, *, owner: int | None = None) -> list[RunRow]:
        """Return running runs."""
        rows = self._fetch(RUNNING_RUNS) if owner is None else self._fetch(RUNNING_OF_OWNER, [owner])
        return list(map(RunRow._make, rows))

    def any_running(self, *, besides: Collection[int] = ()) -> bool:
        """Return whether any run is running."""
        return self._fetch_one(ANY_RUNNING, [list(besides)]) is not None

    def count_running(self) -> int:
        """Count running runs."""
        return integer(self._fetch(COUNT_RUNNING)[0][0])

    def busy_sessions(self, sessions: Collection[str]) -> set[str]:
        """Return those of these sessions that a running run uses."""
        return {str(session) for (session,) in self._fetch(BUSY_SESSIONS, [list(sessions)])} if sessions else set()

    def first_waiting_run(self, key: str) -> int | None:
        """Return the run that has waited longest."""
        row = self._fetch_one(FIRST_WAITING_RUN, [key])
        return integer(row[0]) if row else None

    def list_runs(self, *, job_id: str | None, before: RunRow | None, limit: int) -> list[RunRow]:
        """Return a page of the history."""
        if job_id is None:
            rows = self._fetch(LIST_RUNS, [before.id if before else _MAX_ID, limit])
        else:
            last = (before.scheduled_at, before.manual, before.attempt) if before else (2 * LATEST, 0, 0)
            rows = self._fetch(LIST_RUNS_OF_JOB, [job_id, *last, limit])
        return list(map(RunRow._make, rows))

    def runs_around(self, job_id: str, *, at: Millis) -> tuple[RunRow | None, RunRow | None]:
        """Return the runs before and after a moment."""
        until = self._fetch_one(LAST_RUN_UNTIL, [job_id, at])
        after = self._fetch_one(FIRST_RUN_AFTER, [job_id, at])
        return None if until is None else RunRow._make(until), None if after is None else RunRow._make(after)
