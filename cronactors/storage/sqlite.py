"""The storage in one SQLite file. One connection, used by one thread at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from operator import attrgetter
from pathlib import Path

from cronactors.errors import StoreUnavailable
from cronactors.instants import LATEST, Millis
from cronactors.storage import statements as sql
from cronactors.storage.connection import beside, connect, locked, ours
from cronactors.storage.execution import Execution, Value, parts, whole
from cronactors.storage.file_state import LogWatch, files_of, standing
from cronactors.storage.rows import (
    SPEC,
    Claimed,
    DueItem,
    JobRow,
    JobState,
    NextTimes,
    OriginRow,
    OwnerRow,
    PlainFinish,
    RunFinish,
    RunRow,
)
from cronactors.storage.stop_marks import StopMarks

_MAX_ID = 2**63 - 1
_PLACE = attrgetter("ready_at", "id")
_BEGIN = attrgetter("id", "job_id", "job_name", "user_id", "scheduled_at", "coalesced", "range_at", "owner", "started_at")


# What the columns hold is typed by the STRICT schema. `_make` does the same, at twice the cost.
_job: Callable[[tuple[Value, ...]], JobRow] = partial(tuple.__new__, JobRow)
_run: Callable[[tuple[Value, ...]], RunRow] = partial(tuple.__new__, RunRow)


class SqliteStorage(Execution):
    """A `Storage` in a SQLite file (or ``":memory:"``).

    Args:
        path: The file; the folder must exist.
        wall: The wall clock.
        create: Whether a missing file is made.

    Raises:
        FileLocked: Another process holds the lock.
        StoreUnavailable: The file is missing, not permitted or out of reach.
        StoreCorrupt: The file is damaged, of another application or of a newer version.
    """

    def __init__(self, path: str, *, wall: Callable[[], Millis], create: bool = True) -> None:
        super().__init__(connect(path, create=create), path)
        self._wall = wall
        self._files = files_of(path)
        self._opened = standing(self._files)
        self._marks = StopMarks(self._files[0] if self._files else None)

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        index_gone = standing(self._files[:2]) == self._opened[:2] and standing(self._files) != self._opened
        with beside(Path(self._files[0])) if index_gone else nullcontext():
            self._db.close()

    def watch(self) -> LogWatch:
        """Something to ask whether others have written."""
        return LogWatch(self._files, self._opened)

    @property
    def name(self) -> str:
        """The file."""
        return self._path

    def check(self) -> str | None:
        """Ask SQLite; it does not see whether a text or a number is the one that was written."""
        row = self._one("PRAGMA integrity_check(1)")
        if row is not None and row[0] != "ok":
            return str(row[0])
        half = self._one(sql.HALF_JOB)
        return None if half is None else f"half of job {half[0]} is missing"

    # Transactions

    def now(self) -> Millis:
        """The wall clock."""
        return self._wall()

    def begin(self, *, write: bool) -> bool:
        """Begin a transaction; False if another process holds the lock."""
        # SQLite would go on in the file that nobody can find any more ("How To Corrupt", "Unlinking or renaming a database file");
        # without the index, which has the locks, whoever opens the file next would not know of us.
        if standing(self._files) != self._opened:
            raise StoreUnavailable(f"{self._path} was deleted or replaced, or its -wal or -shm was, while it was open")
        try:
            self._db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            if not write:
                self._db.execute("SELECT 1 FROM owners LIMIT 1")  # takes the snapshot now, where a lock can be waited for
        except sqlite3.Error as error:
            self.rollback()
            if locked(error):
                return False
            raise ours(error, self._path) from error
        return True

    def commit(self) -> None:
        """Make the transaction durable."""
        self._hold_open()
        self._execute("COMMIT")
        self._marks.committed()

    def _hold_open(self) -> None:
        """SQLite may roll back by itself, as on a full disk. Then the rest must not pass for done, nor a savepoint begin anew."""
        if not self._db.in_transaction:
            raise StoreUnavailable(f"{self._path}: the transaction was rolled back")

    def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        self._marks.rolled_back()
        if self._db.in_transaction:
            self._execute("ROLLBACK")

    def savepoint(self) -> None:
        """Mark the point to which `undo` returns."""
        self._hold_open()
        self._execute("SAVEPOINT request")

    def release(self) -> None:
        """Keep what was done since `savepoint`."""
        self._execute("RELEASE request")

    def undo(self) -> None:
        """Undo what was done since `savepoint`."""
        self._execute("ROLLBACK TO request")
        self._execute("RELEASE request")

    # Jobs

    def insert_jobs(self, rows: Sequence[JobRow]) -> None:
        """Add jobs."""
        numbers = self._new_numbers(sql.LAST_JOB, len(rows))
        self._many(sql.INSERT_JOB, ((number, *row[:SPEC]) for number, row in zip(numbers, rows, strict=True)))
        self._many(sql.INSERT_SPEC, ((number, *row[SPEC:]) for number, row in zip(numbers, rows, strict=True)))

    def update_jobs(self, rows: Sequence[JobRow]) -> None:
        """Write every column of existing jobs."""
        self._many(sql.EDIT_JOB, ((*row[:SPEC], row.id) for row in rows))
        self._many(sql.EDIT_SPEC, ((*row[SPEC:], row.id) for row in rows))

    def update_job_states(self, states: Sequence[JobState]) -> None:
        """Write the state of existing jobs."""
        self._together(sql.ADVANCE_JOBS, states)

    def set_rules(self, ids: Sequence[str], *, rules: str) -> None:
        """Note by which rules next moments were computed."""
        self._many(sql.MARK_RULES, ((rules, job_id) for job_id in ids))

    def delete_jobs(self, ids: Sequence[str]) -> None:
        """Take jobs away; their runs stay."""
        self._many(sql.DELETE_JOB, ((job_id,) for job_id in ids))

    def jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """The jobs of those ids that exist."""
        return {job.id: job for job in map(_job, self._among(sql.JOBS, ids))}

    def idle_jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """The jobs of those ids that have no open run."""
        return {job.id: job for job in map(_job, self._among(sql.IDLE_JOBS, ids))}

    def jobs_named(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], JobRow]:
        """The jobs of those (user_id, name) that exist."""
        ids = [str(row[0]) for part in parts(sql.IDS_NAMED, names) for row in self._all(*part) if row[0] is not None]
        return {(job.user_id, job.name): job for job in self.jobs(ids).values()}

    def jobs_of_origin(self, origin: str) -> list[JobRow]:
        """The jobs that the file lists."""
        return list(map(_job, self._all(sql.JOBS_OF_ORIGIN, (origin,))))

    def list_jobs(self, *, after: int, limit: int, user_id: str | None) -> list[tuple[int, JobRow]]:
        """Jobs in the order in which they were added."""
        if user_id is None:
            rows = self._all(sql.PAGE_OF_JOBS, (after, limit))
        else:
            rows = self._all(sql.PAGE_OF_USER, (after, user_id, limit))
        return [(whole(row[0]), _job(row[1:])) for row in rows]

    def latest_added_at(self, *, among: int) -> Millis | None:
        """The latest time that the newest jobs and runs bear."""
        return max((whole(at) for (at,) in self._all(sql.LATEST_ENTRY, {"among": among}) if at is not None), default=None)

    # The queue

    def due(self, *, now: Millis, limit: int, only_runs: bool = False) -> list[DueItem]:
        """What may start, in order of time."""
        rows = self._all(sql.DUE_RUNS if only_runs else sql.DUE, {"now": now, "limit": limit})
        return [DueItem._make(row[:3]) for row in rows]

    def next_times(self) -> NextTimes:
        """When something is to be done next."""
        moment, pending, jobs_to_cancel = self._all(sql.UPCOMING)[0]
        due = [whole(value) for value in (moment, pending) if value is not None]
        return NextTimes(min(due, default=None), None if jobs_to_cancel is None else whole(jobs_to_cancel))

    def jobs_to_cancel(self, *, now: Millis, limit: int) -> list[str]:
        """Jobs whose open run is to be cancelled."""
        return [str(row[0]) for row in self._all(sql.CANCELLING, (now, limit))]

    # Runs

    def insert_runs(self, rows: Sequence[RunRow]) -> list[int | None]:
        """Add runs; None for one that exists already."""
        ids = self._new_numbers(sql.LAST_RUN, len(rows))
        stored = self._many(sql.INSERT_RUN, [(run_id, *row[1:]) for run_id, row in zip(ids, rows, strict=True)])
        if stored == len(rows):
            return list(ids)
        found = self._stored_since(ids.start)
        return [run_id if run_id in found else None for run_id in ids]

    def _stored_since(self, first: int) -> set[int]:
        """Which ids of runs there are from this one on."""
        return {whole(run_id) for (run_id,) in self._all(sql.RUNS_SINCE, (first,))}

    def new_run_ids(self, count: int) -> range:
        """Ids for runs to begin."""
        return self._new_numbers(sql.LAST_RUN, count)

    def insert_started_runs(self, claims: Sequence[Claimed]) -> list[Claimed]:
        """Add runs that begin at once, and what that changes in their jobs; answer those that did not exist already."""
        begun = claims = list(claims)
        if self._together(sql.BEGIN_RUNS, [_BEGIN(each.run) for each in claims]) < len(claims):
            found = self._stored_since(claims[0].run.id)
            begun = [each for each in claims if each.run.id in found]
        self._together(sql.HOLD_JOBS, [(each.job.id, *each[2:], each.run.started_at) for each in begun])
        return begun

    def start_pending_runs(self, ids: Sequence[int], *, owner: int, now: Millis) -> None:
        """Let pending runs begin."""
        self._many(sql.START_RUN, ((owner, now, run_id) for run_id in ids))

    def set_waits_for(self, waits: Sequence[tuple[int, str | None]]) -> None:
        """Set what pending runs wait for."""
        self._many(sql.PARK_RUN, ((key, run_id) for run_id, key in waits))

    def store_finishes(self, ends: Sequence[RunFinish]) -> list[bool]:
        """End runs; False for one whose status has changed meanwhile."""
        return [self._execute(sql.END_RUN, end).rowcount > 0 for end in ends]

    def store_plain_finishes(self, ends: Sequence[PlainFinish], *, owner: int) -> bool:
        """End runs whose jobs are as their claims left them: what need not be read costs nothing."""
        self._hold_open()
        self._execute("SAVEPOINT plain")
        ended = self._together(sql.END_PLAINLY, [(*each[:4], owner) for each in ends])
        plain = ended == len(ends) and len(ends) == self._together(
            sql.LET_GO_ON, [(each.job_id, each.run_id, each.next_run_at) for each in ends]
        )
        if not plain:
            self._execute("ROLLBACK TO plain")
        self._execute("RELEASE plain")
        return plain

    def mark_runs(self, ids: Sequence[int], *, cause: str | None = None, cancel_requested: bool = False) -> None:
        """Note on running runs why they are being stopped."""
        self._many(sql.MARK_RUN, ((cause, int(cancel_requested), run_id) for run_id in ids))

    def advance_pending(self, *, now: Millis, by: Millis) -> None:
        """Move pending runs of the future earlier."""
        self._execute(sql.SHIFT_PENDING, {"now": now, "by": by})

    def runs(self, ids: Sequence[int]) -> dict[int, RunRow]:
        """The runs of those ids that exist."""
        known = [run_id for run_id in ids if 0 <= run_id <= _MAX_ID]
        return {run.id: run for run in map(_run, self._among(sql.RUNS, known))}

    def open_runs(self, job_ids: Sequence[str]) -> list[RunRow]:
        """Pending and running runs of those jobs."""
        return sorted(map(_run, self._among(sql.OPEN_RUNS, job_ids)), key=_PLACE)

    def running(self, *, owner: int | None = None) -> list[RunRow]:
        """Runs that go on."""
        rows = self._all(sql.RUNNING) if owner is None else self._all(sql.RUNNING_OF, (owner,))
        return list(map(_run, rows))

    def count_running(self) -> int:
        """How many runs go on."""
        row = self._one(sql.COUNT_RUNNING)
        return whole(row[0]) if row else 0

    def session_busy(self, session: str) -> bool:
        """Whether a run that goes on uses the session."""
        return self._one(sql.SESSION_BUSY, (session,)) is not None

    def first_waiting_run(self, key: str) -> int | None:
        """The run that has waited longest."""
        row = self._one(sql.FIRST_WAITER, (key,))
        return whole(row[0]) if row else None

    def list_runs(self, *, job_id: str | None, before: RunRow | None, limit: int) -> list[RunRow]:
        """History, newest first."""
        if job_id is None:
            rows = self._all(sql.HISTORY, (before.id if before else _MAX_ID, limit))
        else:
            last = (before.scheduled_at, before.manual, before.attempt) if before else (2 * LATEST, 0, 0)
            rows = self._all(sql.HISTORY_OF, (job_id, *last, limit))
        return list(map(_run, rows))

    def runs_around(self, job_id: str, *, at: Millis) -> tuple[RunRow | None, RunRow | None]:
        """The job's runs next to a moment."""
        until, after = self._one(sql.RUN_UNTIL, (job_id, at)), self._one(sql.RUN_AFTER, (job_id, at))
        return None if until is None else _run(until), None if after is None else _run(after)

    # Owners

    def insert_owner(self, row: OwnerRow) -> int:
        """Add an owner."""
        return self._execute(sql.INSERT_OWNER, row[1:]).lastrowid or 0

    def owners(self) -> list[OwnerRow]:
        """All owners."""
        return [OwnerRow._make(row) for row in self._all(sql.OWNERS)]

    def renew_lease(self, owner: int, *, now: Millis, until: Millis, unless_later_than: Millis) -> None:
        """Lengthen the lease, if it ends soon; shorten it if time was set back since the last sign of life."""
        self._execute(sql.RENEW_LEASE, (now, until, owner, unless_later_than, now))

    def delete_owners(self, ids: Sequence[int]) -> None:
        """Take owners away."""
        self._many(sql.DELETE_OWNER, ((owner,) for owner in ids))

    # Facts about the file, and where lists of jobs come from

    def meta(self, key: str) -> str | None:
        """A fact about the file."""
        row = self._one(sql.META, (key,))
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str | None) -> None:
        """Note a fact about the file."""
        if value is None:
            self._execute(sql.DELETE_META, (key,))
        else:
            self._execute(sql.INSERT_META, (key, value))

    def origins(self) -> list[OriginRow]:
        """The origins that jobs have."""
        return [
            OriginRow(str(name), None if file is None else str(file), whole(jobs)) for name, file, jobs in self._all(sql.ORIGINS)
        ]

    def set_origin(self, name: str, file: str | None) -> None:
        """Note which file lists the jobs of an origin."""
        if file is None:
            self._execute(sql.DELETE_ORIGIN, (name,))
        else:
            self._execute(sql.INSERT_ORIGIN, (name, file))

    def mark_stopping(self, owner: int) -> None:
        """Mark an owner as asked to stop."""
        self._marks.note(owner)

    def stopping_owners(self) -> set[int]:
        """The owners that are marked so."""
        return self._marks.owners()

    def unmark_stopping(self, owner: int) -> None:
        """Remove the mark of an owner with the commit."""
        self._marks.forget(owner)
