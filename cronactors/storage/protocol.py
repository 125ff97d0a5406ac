"""The protocol of a storage: verbs on rows. They are synchronous, take many rows each, and belong inside one transaction.

`cronactors.ledger` makes the decisions; a storage only stores them. The tests in ``tests/storage/test_protocol*.py`` hold every
storage to this protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from cronactors.instants import Millis
from cronactors.storage.rows import (
    Claimed,
    DueItem,
    JobRow,
    JobState,
    NextTimes,
    OriginRow,
    OverdueMoment,
    OwnerRow,
    PlainFinish,
    RunFinish,
    RunRow,
)
from cronactors.storage.tables import Tables


class Storage(Tables, Protocol):
    """Jobs, runs and the schedulers that own them. Runs on the storage thread, except for `mark_stopping`.

    Each verb may raise `StoreUnavailable` or `StoreCorrupt`; then the whole transaction is lost.
    """

    @property
    def name(self) -> str:
        """How messages name the storage."""
        ...

    def now(self) -> Millis:
        """Return the time of the wall clock."""
        ...

    # Transactions

    def begin(self, *, write: bool, alone: bool = True) -> bool:
        """Begin a transaction; return False if another process is in the way, and no transaction has begun.

        Args:
            write: Whether it may write.
            alone: Whether no other transaction may write meanwhile. If False, a storage may let transactions write side by side. Then
                the verbs that read jobs to decide about them, which are `jobs`, `idle_jobs`, `jobs_named`, `jobs_of_origin` and `due`,
                lock them until the end of the transaction, so that no other one decides about them.
        """
        ...

    @property
    def writes_side_by_side(self) -> bool:
        """Whether transactions that are not alone write beside others."""
        ...

    def hold(self, *keys: str, wait: bool = True) -> bool:
        """Keep other transactions that write from holding any of these keys until this one ends.

        It is for decisions that depend on several jobs. A claim does not wait, so that no two transactions wait for each other: a
        finish waits for a claim, and a claim for nobody.

        Returns:
            Whether all are held; False only without ``wait``.
        """
        ...

    def wait_until(self, instant: Millis, *, longest: Millis) -> None:
        """Block the thread until `now` would return an instant, at most for ``longest``."""
        ...

    def commit(self) -> None:
        """Make the transaction durable."""
        ...

    def commit_writes(self) -> NextTimes:
        """Make the transaction durable, and return the next times as it leaves them."""
        ...

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        ...

    def savepoint(self) -> None:
        """Set the point to which `undo` returns. There is at most one."""
        ...

    def release(self) -> None:
        """Keep all changes since `savepoint`, and remove it."""
        ...

    def undo(self) -> None:
        """Undo all changes since `savepoint`, and remove it."""
        ...

    def check(self) -> str | None:
        """Read the whole storage, outside of a transaction; return the first damage that is found, or None."""
        ...

    # Jobs

    def insert_jobs(self, rows: Sequence[JobRow]) -> None:
        """Add jobs; ids, and names of one user, must be new."""
        ...

    def update_jobs(self, rows: Sequence[JobRow]) -> None:
        """Write every column of existing jobs."""
        ...

    def update_job_states(self, states: Sequence[JobState]) -> None:
        """Write the state of existing jobs, each of them once."""
        ...

    def set_rules(self, ids: Sequence[str], *, rules: str) -> None:
        """Store by which release of the rules the next moments of existing jobs were computed."""
        ...

    def delete_jobs(self, ids: Sequence[str]) -> None:
        """Delete jobs; their runs stay."""
        ...

    def jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """Return the jobs with these ids that exist."""
        ...

    def read_jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """Return jobs as `jobs` does, not to decide about them: it never locks them, and does not wait for who has."""
        ...

    def idle_jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """Return the jobs with these ids that exist and have no open run."""
        ...

    def jobs_named(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], JobRow]:
        """Return the jobs with these pairs of user_id and name that exist."""
        ...

    def job_names(self, *, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """Return a page of user_id and name of all jobs, in this order, later than ``after``."""
        ...

    def jobs_of_origin(self, origin: str) -> list[JobRow]:
        """Return the jobs that have this origin."""
        ...

    def latest_added_at(self, *, among: int) -> Millis | None:
        """Return the latest time that the newest jobs and runs have.

        For a job it is when it was added, or from when on its interval counts; for a pending first attempt, when it may start.

        Args:
            among: How many of the newest jobs, and how many of the newest runs, are read.
        """
        ...

    def list_jobs(self, *, after: int, limit: int, user_id: str | None) -> list[tuple[int, JobRow]]:
        """Return a page of jobs in the order in which they were added, each with its number.

        Args:
            after: Only jobs with greater numbers: 0, or the last number of the page before.
            limit: How many at most.
            user_id: Only jobs of this user; None: of all users.
        """
        ...

    def jobs_tagged(self, tag: str, *, after: int, limit: int) -> list[tuple[int, JobRow]]:
        """Return a page of the jobs that have a tag, as `list_jobs` does. A job whose tags cannot be read has none."""
        ...

    # The queue

    def due(self, *, now: Millis, limit: int, only_runs: bool = False) -> list[DueItem]:
        """Return due jobs and pending runs that may start, or only the runs. In order of time, then in the order of adding.

        A transaction that writes beside others does not get those that another one decides about, see `left_out`.
        """
        ...

    @property
    def left_out(self) -> bool:
        """Whether the last call of `due` found nothing but what another transaction decides about now."""
        ...

    def overdue(self, *, until: Millis, after: OverdueMoment | None, limit: int) -> list[OverdueMoment]:
        """Return the moments of jobs in the queue that are due since ``until`` or earlier, in order of time, then of adding.

        Args:
            until: The latest moment.
            after: The last one of the page before; None: from the first.
            limit: How many at most.
        """
        ...

    def next_times(self) -> NextTimes:
        """Return the times of the first item of the queue, and of the first of `jobs_to_cancel` and of the pauses that end."""
        ...

    def jobs_to_cancel(self, *, now: Millis, limit: int) -> list[str]:
        """Return jobs whose open run is to be cancelled, because their next moment is due; in order of time."""
        ...

    # Runs

    def insert_runs(self, rows: Sequence[RunRow]) -> list[int | None]:
        """Add runs and return their ids; None for one whose (job, moment, manual, attempt) exists, which is not added."""
        ...

    def new_run_ids(self, count: int) -> Sequence[int]:
        """Return ids for so many started runs, greater than any that a run of the same job has."""
        ...

    def insert_started_runs(self, claims: Sequence[Claimed]) -> list[Claimed]:
        """Add runs that are running at once, and write the changes of their jobs.

        Their ids are from `new_run_ids`. They are first attempts of moments and use no session, and no two are of one job.

        Returns:
            The claims that were stored. For any other, (job, moment, manual, attempt) exists already, and nothing has changed.
        """
        ...

    def start_pending_runs(self, ids: Sequence[int], *, owner: int, now: Millis) -> None:
        """Let pending runs be running."""
        ...

    def set_waits_for(self, waits: Sequence[tuple[int, str | None]]) -> int:
        """Set ``waits_for`` of runs that are pending, and return how many that were."""
        ...

    def store_finishes(self, finishes: Sequence[RunFinish]) -> list[bool]:
        """Finish runs; return False for one that no longer has its ``expected_status``, and nothing has changed."""
        ...

    def store_plain_finishes(self, finishes: Sequence[PlainFinish], *, owner: int) -> bool:
        """Finish successful runs and release their jobs, if nothing has changed since they were claimed.

        A released job is held by no run and has no error. It is disabled if it has no next moment.

        The conditions: each run is listed once, is running, belongs to this owner, and no cancellation was requested. It holds
        its job, which has no other open run, is enabled, has neither crashed nor failed, is not to be deleted after the run, and has the next
        moment that is given here.

        Returns:
            Whether all of them meet the conditions; otherwise nothing has changed.
        """
        ...

    def mark_runs(self, ids: Sequence[int], *, cause: str | None = None, cancel_requested: bool = False) -> None:
        """Store why running runs are being stopped, or that their cancellation was requested. A mark stays."""
        ...

    def advance_pending(self, *, now: Millis, by: Millis) -> None:
        """Move pending runs that are ready later than ``now`` to an earlier time.

        A retry moves by so many milliseconds, but not before ``now``. A first attempt moves to ``now``: its moment had come when
        it was added.
        """
        ...

    def runs(self, ids: Sequence[int]) -> dict[int, RunRow]:
        """Return the runs with these ids that exist."""
        ...

    def open_runs(self, job_ids: Sequence[str]) -> list[RunRow]:
        """Return pending and running runs of these jobs, in order of ready_at and id."""
        ...

    def running(self, *, owner: int | None = None) -> list[RunRow]:
        """Return running runs, of one owner or of all."""
        ...

    def any_running(self, *, besides: Collection[int] = ()) -> bool:
        """Return whether any run is running, besides those of some owners."""
        ...

    def count_running(self) -> int:
        """Count the running runs of all owners."""
        ...

    def busy_sessions(self, sessions: Collection[str]) -> set[str]:
        """Return those of these sessions that a running run uses."""
        ...

    def first_waiting_run(self, key: str) -> int | None:
        """Return the run that has waited longest for ``key``."""
        ...

    def list_runs(self, *, job_id: str | None, before: RunRow | None, limit: int) -> list[RunRow]:
        """Return a page of the history, newest first.

        Args:
            job_id: Only runs of this job, in order of moment; None: of all jobs, in order of id.
            before: The last row of the page before; None: from the newest.
            limit: How many at most.
        """
        ...

    def runs_around(self, job_id: str, *, at: Millis) -> tuple[RunRow | None, RunRow | None]:
        """Return the runs of a job next to a moment, without those that users requested.

        Returns:
            The last attempt of the moment ``at``, or of the latest before it; and the first attempt of the earliest after it.
        """
        ...

    # Owners

    def insert_owner(self, row: OwnerRow) -> int:
        """Add an owner and return its id: a new one, if it is 0 in the row."""
        ...

    def owners(self) -> list[OwnerRow]:
        """Return all owners."""
        ...

    def owner(self, number: int) -> OwnerRow | None:
        """Return an owner; None if there is none with this number.

        One whose lease this process has renewed may be returned as it was then, as long as the lease lasts.
        """
        ...

    def renew_lease(self, owner: int, *, now: Millis, until: Millis, unless_later_than: Millis) -> None:
        """Let the lease end at ``until``, with a heartbeat ``now``.

        Nothing changes if the lease lasts until ``unless_later_than`` already, and its last heartbeat is not in the future.
        """
        ...

    def delete_owners(self, ids: Sequence[int]) -> None:
        """Delete owners."""
        ...

    # Facts about the storage, and where lists of jobs come from

    def meta(self, key: str) -> str | None:
        """Return a fact about the storage as a whole, as JSON; None if it was never set."""
        ...

    def set_meta(self, key: str, value: str | None) -> None:
        """Set a fact; None deletes it."""
        ...

    def origins(self) -> list[OriginRow]:
        """Return the origins that jobs have."""
        ...

    def set_origin(self, name: str, file: str | None) -> None:
        """Store which file lists the jobs of an origin; None deletes that."""
        ...

    # Stop marks

    def mark_stopping(self, owner: int) -> None:
        """Mark an owner as stopping: at once, on any thread, inside or outside of a transaction.

        Raises:
            OSError: The mark cannot be made.
        """
        ...

    def stopping_owners(self) -> set[int]:
        """Return the owners with a mark, whether or not they exist."""
        ...

    def unmark_stopping(self, owner: int) -> None:
        """Remove the mark of an owner when this transaction is committed."""
        ...
