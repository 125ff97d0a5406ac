"""The storage in a SQLite file. It has one connection, which one thread at a time uses.

`protocol` documents each verb; docstrings here only add the details of SQLite.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from pathlib import Path
from typing import Final

from cronactors.errors import StoreUnavailable
from cronactors.instants import LATEST, Millis
from cronactors.storage import statements as sql
from cronactors.storage.connection import connect, keeping_log
from cronactors.storage.errors import Contended
from cronactors.storage.file_state import LogWatch, database_files, file_ids
from cronactors.storage.rows import (
    Claimed,
    DueItem,
    NextTimes,
    OriginRow,
    OwnerRow,
    PlainFinish,
    RunFinish,
    RunRow,
)
from cronactors.storage.sqlite_history import SqliteHistory
from cronactors.storage.sqlite_jobs import SqliteJobs
from cronactors.storage.sqlite_notifications import SqliteNotifications
from cronactors.storage.sqlite_pauses import SqlitePauses
from cronactors.storage.sqlite_pruning import SqlitePruning
from cronactors.storage.sqlite_run_output import SqliteOutput
from cronactors.storage.sqlite_run_requests import SqliteRunRequests
from cronactors.storage.stop_marks import StopMarks
from cronactors.storage.values import integer
from cronactors.wallclock import sleep_until, system_wall

_MAX_ID: Final = 2**63 - 1

_queue_order = attrgetter("ready_at", "id")
_finish = sql.STORE_FINISH.row_maker()
_started_run = sql.INSERT_STARTED_RUN.row_maker()
_held_job = sql.HOLD_JOB.row_maker(id="job.id", last_run_at="run.started_at")
_released_job = sql.RELEASE_JOB.row_maker()


class SqliteStorage(SqliteJobs):
    """A `Storage` in a SQLite file (or ``":memory:"``).

    Args:
        path: The file; the folder must exist.
        wall: The wall clock.
        create: Whether to create a missing file.
        marked: Whether it may be marked as moved.

    Raises:
        FileMoved: It is marked, and must not be.
        Contended: Another process holds the lock.
        StoreUnavailable: The file is missing, not permitted or out of reach.
        StoreCorrupt: The file is damaged, of another application or of a newer version.
    """

    def __init__(self, path: str, *, wall: Callable[[], Millis], create: bool = True, marked: bool = False) -> None:
        super().__init__(connect(path, create=create, marked=marked), path)
        self.history = SqliteHistory(self._db, path)
        self.pruning = SqlitePruning(self._db, path)
        self.wall = wall
        self._files = database_files(path)
        self._opened = file_ids(self._files)
        self.output = SqliteOutput(self._db, self._path)
        self.run_requests = SqliteRunRequests(self._db, self._path)
        self.pauses = SqlitePauses(self._db, self._path)
        self.notifications = SqliteNotifications(self._db, self._path)
        self._marks = StopMarks(self._files[0] if self._files else None)

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        index_gone = file_ids(self._files[:2]) == self._opened[:2] and file_ids(self._files) != self._opened
        with self._errors, keeping_log(Path(self._files[0])) if index_gone else nullcontext():
            self._db.close()

    def seconds(self) -> float:
        """Return the time of the wall clock."""
        return time.time() if self.wall is system_wall else self.wall() / 1000

    def lease_ends(self, owner: int) -> None:
        """Return None: a process that is kept from the file keeps its runs."""

    def listen(self, heard: Callable[[], None], deaf: Callable[[bool], None]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Hear nothing: `watch` looks at the file."""
        return nullcontext()

    def give_up_at(self, until: Callable[[], float]) -> None:
        """Do nothing: the waits for a lock are short."""

    def watch(self) -> LogWatch:
        """Return a watch that notices writes of other connections."""
        return LogWatch(self._files, self._opened)

    @property
    def name(self) -> str:
        """The file."""
        return self._path

    def check(self) -> str | None:
        """Let SQLite check the file. It does not notice a text or a number that is not the one that was written."""
        row = self._fetch_one("PRAGMA integrity_check(1)")
        if row is not None and row[0] != "ok":
            return str(row[0])
        incomplete = self._fetch_one(sql.INCOMPLETE_JOB)
        return None if incomplete is None else f"half of job {incomplete[0]} is missing"

    # Transactions

    def now(self) -> Millis:
        """Return the time of the wall clock."""
        return self.wall()

    def begin(self, *, write: bool, alone: bool = True) -> bool:  # noqa: ARG002 - SQLite has one writer at a time
        """Begin a transaction, unless a file of the database was deleted or replaced.

        SQLite would write to the deleted file, which no other process can open ("How To Corrupt An SQLite Database File",
        "Unlinking or renaming a database file while in use"). The locks are in the ``-shm``: without it the next process to open
        the file would not notice ours.
        """
        if file_ids(self._files) != self._opened:
            raise StoreUnavailable(f"{self._path} was deleted or replaced, or its -wal or -shm was, while it was open")
        try:
            self._execute("BEGIN IMMEDIATE" if write else "BEGIN")
            if not write:
                self._execute("SELECT 1 FROM owners LIMIT 1")  # takes the snapshot now, while a lock can still be waited for
        except Contended:
            self.rollback()
            return False
        except BaseException:
            self.rollback()
            raise
        return True

    def commit(self) -> None:
        """Make the transaction durable, and delete the stop marks that are no longer needed."""
        self._require_transaction()
        self._execute("COMMIT")
        self._marks.committed()

    def _require_transaction(self) -> None:
        """Raise StoreUnavailable if SQLite has rolled back by itself, as it does when the disk is full.

        Otherwise COMMIT would report success, and the next SAVEPOINT would begin a transaction of its own.
        """
        if not self._db.in_transaction:
            raise StoreUnavailable(f"{self._path}: the transaction was rolled back")

    def commit_writes(self) -> NextTimes:
        """Read the next times, and commit."""
        next_times = self.next_times()
        self.commit()
        return next_times

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        self._marks.rolled_back()
        if self._db.in_transaction:
            self._execute("ROLLBACK")

    def hold(self, *keys: str, wait: bool = True) -> bool:  # noqa: ARG002
        """Return True: whoever writes does so alone."""
        return True

    def wait_until(self, instant: Millis, *, longest: Millis) -> None:
        """Sleep by the system's clock."""
        sleep_until(instant, longest=longest)

    def savepoint(self) -> None:
        """Set a savepoint."""
        self._require_transaction()
        self._execute("SAVEPOINT request")

    def release(self) -> None:
        """Keep all changes since `savepoint`."""
        self._execute("RELEASE request")

    def undo(self) -> None:
        """Undo all changes since `savepoint`."""
        self._execute("ROLLBACK TO request")
        self._execute("RELEASE request")

    # The queue

    left_out: Final = False
    writes_side_by_side: Final = False

    def due(self, *, now: Millis, limit: int, only_runs: bool = False) -> list[DueItem]:
        """Return the first items of the queue."""
        rows = self._fetch(sql.DUE_RUNS if only_runs else sql.DUE, {"now": now, "limit": limit})
        return [DueItem._make(row[:3]) for row in rows]

    def next_times(self) -> NextTimes:
        """Return the next times of the queue, and of `jobs_to_cancel` and `pauses`."""
        moment, pending, cancelling, resuming = self._fetch(sql.NEXT_TIMES)[0]
        due = [integer(at) for at in (moment, pending) if at is not None]
        slotless = [integer(at) for at in (cancelling, resuming) if at is not None]
        return NextTimes(min(due, default=None), min(slotless, default=None))

    def jobs_to_cancel(self, *, now: Millis, limit: int) -> list[str]:
        """Return jobs whose open run is to be cancelled."""
        return [str(job_id) for (job_id,) in self._fetch(sql.JOBS_TO_CANCEL, (now, limit))]

    # Runs

    def insert_runs(self, rows: Sequence[RunRow]) -> list[int | None]:
        """Add runs; a refused row uses up an id."""
        ids = self._new_numbers(sql.LAST_RUN, len(rows))
        inserted = self._write(sql.INSERT_RUN, [row.with_id(run_id) for run_id, row in zip(ids, rows, strict=True)])
        if inserted == len(rows):
            return list(ids)
        existing = self._run_ids_from(ids.start)
        return [run_id if run_id in existing else None for run_id in ids]

    def _run_ids_from(self, first: int) -> set[int]:
        """Return the ids of runs that are not less than ``first``."""
        return {integer(run_id) for (run_id,) in self._fetch(sql.RUN_IDS_FROM, (first,))}

    def new_run_ids(self, count: int) -> range:
        """Return ids for runs."""
        return self._new_numbers(sql.LAST_RUN, count)

    def insert_started_runs(self, claims: Sequence[Claimed]) -> list[Claimed]:
        """Add running runs, and let them hold their jobs."""
        started = claims = list(claims)
        if self._write(sql.INSERT_STARTED_RUN, [_started_run(claimed.run) for claimed in claims]) < len(claims):
            existing = self._run_ids_from(claims[0].run.id)
            started = [claimed for claimed in claims if claimed.run.id in existing]
        self._write(sql.HOLD_JOB, map(_held_job, started))
        return started

    def start_pending_runs(self, ids: Sequence[int], *, owner: int, now: Millis) -> None:
        """Start pending runs."""
        self._write(sql.START_PENDING_RUN, ((owner, now, run_id) for run_id in ids))

    def set_waits_for(self, waits: Sequence[tuple[int, str | None]]) -> int:
        """Set ``waits_for`` of pending runs."""
        return self._write(sql.SET_WAITS_FOR, ((key, run_id) for run_id, key in waits))

    def store_finishes(self, finishes: Sequence[RunFinish]) -> list[bool]:
        """Finish runs, one by one."""
        return [self._write(sql.STORE_FINISH, [_finish(finish)]) > 0 for finish in finishes]

    def store_plain_finishes(self, finishes: Sequence[PlainFinish], *, owner: int) -> bool:
        """Finish runs without reading anything.

        Most runs succeed while nothing else concerns their job. To read run, job and open runs first took a run from 85 to 105 us
        (docs/performance.md). So we write at once: the WHERE clauses of two statements hold every condition, and if they change
        fewer rows than they should, we undo both.
        """
        self._require_transaction()
        self._execute("SAVEPOINT plain")
        runs = [(run.completed_at, run.session_id, run.result, run.result_data, run.run_id, owner) for run in finishes]
        are_plain = self._write(sql.STORE_PLAIN_FINISH, runs) == len(finishes) and (
            self._write(sql.RELEASE_JOB, map(_released_job, finishes)) == len(finishes)
        )
        if not are_plain:
            self._execute("ROLLBACK TO plain")
        self._execute("RELEASE plain")
        return are_plain

    def mark_runs(self, ids: Sequence[int], *, cause: str | None = None, cancel_requested: bool = False) -> None:
        """Mark running runs."""
        self._write(sql.MARK_RUN, ((cause, int(cancel_requested), run_id) for run_id in ids))

    def advance_pending(self, *, now: Millis, by: Millis) -> None:
        """Move pending runs earlier."""
        self._execute(sql.ADVANCE_PENDING, {"now": now, "by": by})

    def runs(self, ids: Sequence[int]) -> dict[int, RunRow]:
        """Return runs by id. An id that SQLite cannot hold has no run."""
        keys = [(run_id,) for run_id in ids if 0 <= run_id <= _MAX_ID]
        return {run.id: run for run in map(RunRow._make, self._read(sql.RUNS, keys))}

    def open_runs(self, job_ids: Sequence[str]) -> list[RunRow]:
        """Return pending and running runs of jobs. Each has a partial index of its own, so there are two queries."""
        keys = [(job_id,) for job_id in job_ids]
        rows = self._read(sql.PENDING_RUNS_OF_JOBS, keys) + self._read(sql.RUNNING_RUNS_OF_JOBS, keys)
        return sorted(map(RunRow._make, rows), key=_queue_order)

    def running(self, *, owner: int | None = None) -> list[RunRow]:
        """Return running runs."""
        rows = self._fetch(sql.RUNNING) if owner is None else self._fetch(sql.RUNNING_OF_OWNER, (owner,))
        return list(map(RunRow._make, rows))

    def any_running(self, *, besides: Collection[int] = ()) -> bool:
        """Return whether any run is running."""
        return any(owner not in besides for (owner,) in self._fetch(sql.RUNNING_OWNERS))

    def count_running(self) -> int:
        """Count running runs."""
        return integer(self._fetch(sql.COUNT_RUNNING)[0][0])

    def busy_sessions(self, sessions: Collection[str]) -> set[str]:
        """Return those of these sessions that a running run uses."""
        return {str(session) for (session,) in self._read(sql.BUSY_SESSIONS, [(session,) for session in sessions])}

    def first_waiting_run(self, key: str) -> int | None:
        """Return the run that has waited longest."""
        row = self._fetch_one(sql.FIRST_WAITING_RUN, (key,))
        return integer(row[0]) if row else None

    def list_runs(self, *, job_id: str | None, before: RunRow | None, limit: int) -> list[RunRow]:
        """Return a page of the history."""
        if job_id is None:
            rows = self._fetch(sql.LIST_RUNS, (before.id if before else _MAX_ID, limit))
        else:
            last = (before.scheduled_at, before.manual, before.attempt) if before else (2 * LATEST, 0, 0)
            rows = self._fetch(sql.LIST_RUNS_OF_JOB, (job_id, *last, limit))
        return list(map(RunRow._make, rows))

    def runs_around(self, job_id: str, *, at: Millis) -> tuple[RunRow | None, RunRow | None]:
        """Return the runs before and after a moment."""
        until = self._fetch_one(sql.LAST_RUN_UNTIL, (job_id, at))
        after = self._fetch_one(sql.FIRST_RUN_AFTER, (job_id, at))
        return None if until is None else RunRow._make(until), None if after is None else RunRow._make(after)

    # Owners

    def insert_owner(self, row: OwnerRow) -> int:
        """Add an owner."""
        return self._execute(sql.INSERT_OWNER, (row.id or None, *row[1:])).lastrowid or 0

    def owners(self) -> list[OwnerRow]:
        """Return all owners."""
        return [OwnerRow._make(row) for row in self._fetch(sql.OWNERS)]

    def owner(self, number: int) -> OwnerRow | None:
        """Return an owner."""
        row = self._fetch_one(sql.OWNER, (number,))
        return None if row is None else OwnerRow._make(row)

    def renew_lease(self, owner: int, *, now: Millis, until: Millis, unless_later_than: Millis) -> None:
        """Renew a lease."""
        self._execute(sql.RENEW_LEASE, {"now": now, "until": until, "owner": owner, "unless_later_than": unless_later_than})

    def delete_owners(self, ids: Sequence[int]) -> None:
        """Delete owners."""
        self._write(sql.DELETE_OWNER, ((owner,) for owner in ids))

    # Facts about the file, and where lists of jobs come from

    def meta(self, key: str) -> str | None:
        """Return a fact about the file."""
        row = self._fetch_one(sql.META, (key,))
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str | None) -> None:
        """Write or delete a fact about the file."""
        if value is None:
            self._execute(sql.DELETE_META, (key,))
        else:
            self._execute(sql.INSERT_META, (key, value))

    def origins(self) -> list[OriginRow]:
        """Return the origins of jobs."""
        return [
            OriginRow(str(name), None if file is None else str(file), integer(jobs))
            for name, file, jobs in self._fetch(sql.ORIGINS)
        ]

    def set_origin(self, name: str, file: str | None) -> None:
        """Write or delete the file of an origin."""
        if file is None:
            self._execute(sql.DELETE_ORIGIN, (name,))
        else:
            self._execute(sql.INSERT_ORIGIN, (name, file))

    # Stop marks, which are files beside the database

    def mark_stopping(self, owner: int) -> None:
        """Create the mark of an owner."""
        self._marks.note(owner)

    def stopping_owners(self) -> set[int]:
        """Return the owners with a mark."""
        return self._marks.owners()

    def unmark_stopping(self, owner: int) -> None:
        """Delete the mark of an owner after the commit."""
        self._marks.forget(owner)
