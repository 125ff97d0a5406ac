"""Every SQL statement of the rows, once. The shape of `DUE` and the bare WHERE clauses are what makes SQLite use the indexes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import NamedTuple

from cronactors.storage.rows import SPEC, JobRow, JobState, OwnerRow, RunRow


def _columns(row: type[NamedTuple], *, without: str = "") -> list[str]:
    return [name for name in row._fields if name != without]


def _quoted(names: list[str], prefix: str = "") -> str:
    return ", ".join(f'{prefix}"{name}"' for name in names)


@cache
def widened(statement: str, width: int) -> str:
    """The statement for so many keys instead of one."""
    return statement.replace("(?)", f"({', '.join('?' * width)})")


@cache
def together(statement: str, width: int, count: int) -> str:
    """The statement for ``count`` rows of ``width`` values at once: `{1}` is the first value of a row, `{0}` where rows come from.

    A single row is bound to plain `?`, as `values_in_order` gives its values: Python 3.12.0 to 3.12.3 warn of `?1` with a sequence
    (gh-117995).
    """
    if count == 1:
        return statement.format("", *(["?"] * width))
    names = [f"v{place}" for place in range(1, width + 1)]
    rows = ", ".join([f"({_marks(names)})"] * count)
    # Not in front: Python tells how many rows were changed only of what begins with INSERT or UPDATE.
    given = f"(WITH given ({', '.join(names)}) AS (VALUES {rows}) SELECT * FROM given)"
    return statement.format(f"FROM {given}", *names)


@cache
def values_in_order(statement: str) -> Callable[[Sequence[object]], tuple[str | int | float | None, ...]]:
    """A function that returns the values of a row in the order in which the statement for a single row uses them."""
    places = [int(place) - 1 for place in re.findall(r"\{([1-9]\d*)\}", statement)]
    assert len(places) > 1, "itemgetter returns no tuple for one place"
    return itemgetter(*places)


def _last(table: str, key: str) -> str:
    """The largest number that was ever given, as AUTOINCREMENT goes on from it; the rows count too, since SQLite's own note may be damaged."""
    noted = f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'"
    return f"SELECT max(coalesce((SELECT max({key}) FROM {table}), 0), coalesce(({noted}), 0))"


def _marks(names: list[str]) -> str:
    return ", ".join("?" for _ in names)


_JOB = list(JobRow._fields[:SPEC])
_SPEC = list(JobRow._fields[SPEC:])
_STATE = _columns(JobState, without="id")
_RUN = _columns(RunRow)
_OWNER = _columns(OwnerRow)
_NEW_OWNER = _columns(OwnerRow, without="id")
_WHOLE = f"{_quoted(_JOB + _SPEC)} FROM jobs CROSS JOIN job_specs ON job_specs.number = jobs.number"
_JOBS = f"SELECT {_WHOLE}"
_RUNS = f"SELECT {_quoted(_RUN)} FROM runs"
_ALONE = """NOT EXISTS (SELECT 1 FROM runs WHERE job_id = jobs.id AND status = 'pending')
 AND NOT EXISTS (SELECT 1 FROM runs WHERE job_id = jobs.id AND status = 'running')"""

LAST_JOB = _last("jobs", "number")
INSERT_JOB = f"INSERT INTO jobs (number, {_quoted(_JOB)}) VALUES (?, {_marks(_JOB)})"
INSERT_SPEC = f"INSERT INTO job_specs (number, {_quoted(_SPEC)}) VALUES (?, {_marks(_SPEC)})"
EDIT_JOB = f"UPDATE jobs SET ({_quoted(_JOB)}) = ({_marks(_JOB)}) WHERE id = ?"
EDIT_SPEC = f"UPDATE job_specs SET ({_quoted(_SPEC)}) = ({_marks(_SPEC)}) WHERE number = (SELECT number FROM jobs WHERE id = ?)"
ADVANCE_JOBS = f"""UPDATE jobs SET {", ".join(f"{name} = {{{place}}}" for place, name in enumerate(_STATE, 1))} {{0}}
 WHERE id = {{{len(_STATE) + 1}}}"""
HOLD_JOBS = "UPDATE jobs SET next_run_at = {2}, decided_local = {3}, held_by = {4}, last_run_at = {5} {0} WHERE id = {1}"
MARK_RULES = "UPDATE job_specs SET rules = ? WHERE number = (SELECT number FROM jobs WHERE id = ?)"
HALF_JOB = """SELECT number FROM jobs WHERE number NOT IN (SELECT number FROM job_specs)
UNION ALL SELECT number FROM job_specs WHERE number NOT IN (SELECT number FROM jobs) LIMIT 1"""
DELETE_JOB = "DELETE FROM jobs WHERE id = ?"
JOBS = f"{_JOBS} WHERE id IN (?)"
IDLE_JOBS = f"{_JOBS} WHERE id IN (?) AND {_ALONE}"
IDS_NAMED = "SELECT (SELECT id FROM jobs WHERE user_id = {1} AND name = {2}) {0}"
JOBS_OF_ORIGIN = f"{_JOBS} WHERE origin = ?"
PAGE_OF_JOBS = f"SELECT jobs.number, {_WHOLE} WHERE jobs.number > ? ORDER BY jobs.number LIMIT ?"
LATEST_ENTRY = """SELECT max(at) FROM (SELECT max(created_at, anchor_at) AS at FROM job_specs ORDER BY number DESC LIMIT :among)
UNION ALL SELECT max(at) FROM
 (SELECT iif(status = 'pending' AND attempt = 1, ready_at, NULL) AS at FROM runs ORDER BY id DESC LIMIT :among)"""
PAGE_OF_USER = f"SELECT jobs.number, {_WHOLE} WHERE jobs.number > ? AND user_id = ? ORDER BY jobs.number LIMIT ?"

_DUE_RUNS = "SELECT id, job_id, ready_at, id FROM runs WHERE status = 'pending' AND waits_for IS NULL AND ready_at <= :now"
DUE_RUNS = f"{_DUE_RUNS} ORDER BY ready_at, id LIMIT :limit"
# A bare UNION ALL: SQLite merges two index walks; inside a subselect it would sort everything that is due.
DUE = f"""SELECT NULL AS run_id, id AS job_id, next_run_at AS due_at, number AS place FROM jobs
 WHERE enabled = 1 AND held_by IS NULL AND next_run_at <= :now
UNION ALL {_DUE_RUNS} ORDER BY due_at, place LIMIT :limit"""

_CANCELLING = "overlap = 'cancel_other' AND enabled = 1 AND held_by IS NOT NULL"
CANCELLING = f"SELECT id FROM jobs WHERE {_CANCELLING} AND next_run_at <= ? ORDER BY next_run_at LIMIT ?"
UPCOMING = f"""SELECT
 (SELECT min(next_run_at) FROM jobs WHERE enabled = 1 AND held_by IS NULL AND next_run_at IS NOT NULL),
 (SELECT min(ready_at) FROM runs WHERE status = 'pending' AND waits_for IS NULL),
 (SELECT min(next_run_at) FROM jobs WHERE {_CANCELLING} AND next_run_at IS NOT NULL)"""

INSERT_RUN = f"""INSERT INTO runs ({_quoted(_RUN)}) VALUES ({_marks(_RUN)})
 ON CONFLICT (job_id, scheduled_at, manual, attempt) DO NOTHING"""
BEGIN_RUNS = """INSERT INTO runs (id, job_id, job_name, user_id, scheduled_at, ready_at, coalesced, range_at, owner, started_at,
  "trigger", manual, attempt, failures, status, cancel_requested, session_id)
 SELECT {1}, {2}, {3}, {4}, {5}, {5}, {6}, {7}, {8}, {9}, 'schedule', 0, 1, 0, 'running', 0, '' {0} WHERE true
 ON CONFLICT (job_id, scheduled_at, manual, attempt) DO NOTHING"""
LAST_RUN = _last("runs", "id")
RUNS_SINCE = "SELECT id FROM runs WHERE id >= ?"
START_RUN = "UPDATE runs SET status = 'running', owner = ?, started_at = ? WHERE id = ? AND status = 'pending'"
PARK_RUN = "UPDATE runs SET waits_for = ? WHERE id = ? AND status = 'pending'"
END_RUN = """UPDATE runs SET status = ?, cause = ?, completed_at = max(?, coalesce(started_at, 0)), session_id = ?, result = ?,
 error = ?, waits_for = NULL WHERE id = ? AND status = ?"""
END_PLAINLY = """UPDATE runs SET status = 'success', cause = NULL, completed_at = max({2}, coalesce(started_at, 0)),
 session_id = {3}, result = {4}, error = NULL {0} WHERE id = {1} AND status = 'running' AND owner = {5} AND cancel_requested = 0"""
LET_GO_ON = f"""UPDATE jobs SET held_by = NULL, last_error = NULL, enabled = next_run_at IS NOT NULL {{0}}
 WHERE id = {{1}} AND held_by = {{2}} AND next_run_at IS {{3}} AND enabled = 1 AND crashes = 0 AND delete_after_run = 0 AND {_ALONE}"""
MARK_RUN = """UPDATE runs SET cause = coalesce(?, cause), cancel_requested = max(cancel_requested, ?) WHERE id = ? AND status = 'running'"""
SHIFT_PENDING = """UPDATE runs SET ready_at = iif(attempt = 1, :now, max(:now, ready_at - :by))
 WHERE status = 'pending' AND ready_at > :now"""
RUNS = f"{_RUNS} WHERE id IN (?)"
OPEN_RUNS = f"""{_RUNS} WHERE job_id IN (?) AND status = 'pending'
UNION ALL {_RUNS} WHERE job_id IN (?) AND status = 'running'"""
RUNNING = f"{_RUNS} WHERE status = 'running'"
RUNNING_OF = f"{_RUNS} WHERE status = 'running' AND owner = ?"
COUNT_RUNNING = "SELECT count(*) FROM runs WHERE status = 'running'"
SESSION_BUSY = "SELECT 1 FROM runs WHERE status = 'running' AND session = ? AND session IS NOT NULL"
FIRST_WAITER = "SELECT id FROM runs WHERE status = 'pending' AND waits_for = ? ORDER BY ready_at, id LIMIT 1"
HISTORY = f"{_RUNS} WHERE id < ? ORDER BY id DESC LIMIT ?"
HISTORY_OF = f"""{_RUNS} WHERE job_id = ? AND (scheduled_at, manual, attempt) < (?, ?, ?)
ORDER BY scheduled_at DESC, manual DESC, attempt DESC LIMIT ?"""
RUN_UNTIL = f"""{_RUNS} WHERE job_id = ? AND scheduled_at <= ? AND +manual = 0
ORDER BY scheduled_at DESC, manual DESC, attempt DESC LIMIT 1"""
RUN_AFTER = f"""{_RUNS} WHERE job_id = ? AND scheduled_at > ? AND +manual = 0
ORDER BY scheduled_at, manual, attempt LIMIT 1"""

INSERT_OWNER = f"INSERT INTO owners ({_quoted(_NEW_OWNER)}) VALUES ({_marks(_NEW_OWNER)})"
OWNERS = f"SELECT {_quoted(_OWNER)} FROM owners"
RENEW_LEASE = "UPDATE owners SET heartbeat_at = ?, lease_until = ? WHERE id = ? AND (lease_until < ? OR heartbeat_at > ?)"
DELETE_OWNER = "DELETE FROM owners WHERE id = ?"

META = "SELECT value FROM meta WHERE key = ?"
INSERT_META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
DELETE_META = "DELETE FROM meta WHERE key = ?"

ORIGINS = (
    "SELECT origin, (SELECT file FROM origins WHERE name = origin), count(*) FROM jobs WHERE origin IS NOT NULL GROUP BY origin"
)
INSERT_ORIGIN = "INSERT INTO origins (name, file) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET file = excluded.file"
DELETE_ORIGIN = "DELETE FROM origins WHERE name = ?"
