"""What any storage must do: verbs on rows, each one taking many, all of them synchronous and inside one transaction.

Decisions are made in `cronactors.ledger`; a storage only keeps what it is told. The suites ``tests/test_storage*.py`` hold every
storage to this protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cronactors.instants import Millis
from cronactors.storage.rows import (
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


class Storage(Protocol):
    """Jobs, runs and the schedulers that own them.

    Verbs may raise `StoreUnavailable` or `StoreCorrupt`; the transaction is then lost as a whole.
    """

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    def now(self) -> Millis:
        """The wall clock."""
        ...

    def begin(self, *, write: bool) -> bool:
        """Begin a transaction; False if another process holds the write lock, and nothing has begun."""
        ...

    def commit(self) -> None:
        """Make the transaction durable."""
        ...

    def rollback(self) -> None:
        """Undo the transaction; harmless where none is open."""
        ...

    def savepoint(self) -> None:
        """Mark the point to which `undo` returns."""
        ...

    def release(self) -> None:
        """Keep what was done since `savepoint`."""
        ...

    def undo(self) -> None:
        """Undo what was done since `savepoint`."""
        ...

    def check(self) -> str | None:
        """Look the whole storage through, outside of a transaction: what is found damaged first, if anything."""
        ...

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
        """Note by which rules the next moments of existing jobs were computed."""
        ...

    def delete_jobs(self, ids: Sequence[str]) -> None:
        """Take jobs away; their runs stay."""
        ...

    def jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """The jobs of those ids that exist."""
        ...

    def idle_jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """The jobs of those ids that exist and have no open run."""
        ...

    def jobs_named(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], JobRow]:
        """The jobs of those (user_id, name) that exist."""
        ...

    def jobs_of_origin(self, origin: str) -> list[JobRow]:
        """The jobs that the file lists."""
        ...

    def latest_added_at(self, *, among: int) -> Millis | None:
        """The latest time at which one of the newest jobs was added or begun anew, or at which a run was to start that waits for its first.

        Args:
            among: How many of the newest jobs, and of the newest runs, are looked at.
        """
        ...

    def list_jobs(self, *, after: int, limit: int, user_id: str | None) -> list[tuple[int, JobRow]]:
        """Jobs in the order in which they were added, each with its number, from numbers greater than ``after``.

        Args:
            after: 0, or the number of the last job of the page before.
            limit: How many at most.
            user_id: Only that user's; None: everybody's.
        """
        ...

    def due(self, *, now: Millis, limit: int, only_runs: bool = False) -> list[DueItem]:
        """What may start, jobs and pending runs in one queue, or only the runs of it: in order of time, then of adding."""
        ...

    def next_times(self) -> NextTimes:
        """When something is to be done next: the first of the queue, and the first of `jobs_to_cancel`."""
        ...

    def jobs_to_cancel(self, *, now: Millis, limit: int) -> list[str]:
        """Jobs with an open run that is to be cancelled, because their next moment has come; in order of time."""
        ...

    def insert_runs(self, rows: Sequence[RunRow]) -> list[int | None]:
        """Add runs and answer their ids; None for one whose (job, moment, manual, attempt) exists already: nothing is changed."""
        ...

    def new_run_ids(self, count: int) -> range:
        """Ids for so many runs to begin, greater than any that was given before."""
        ...

    def insert_started_runs(self, claims: Sequence[Claimed]) -> list[Claimed]:
        """Add runs that begin at once, under ids of `new_run_ids`, and write what that changes in their jobs, no two of one job.

        They are first attempts of moments, and use no session.

        Returns:
            Those that have begun; the others' (job, moment, manual, attempt) exists already, and nothing is changed.
        """
        ...

    def start_pending_runs(self, ids: Sequence[int], *, owner: int, now: Millis) -> None:
        """Let pending runs begin."""
        ...

    def set_waits_for(self, waits: Sequence[tuple[int, str | None]]) -> None:
        """Set what pending runs wait for."""
        ...

    def store_finishes(self, ends: Sequence[RunFinish]) -> list[bool]:
        """End runs; False for one that no longer has the status it was thought to have: nothing is changed."""
        ...

    def store_plain_finishes(self, ends: Sequence[PlainFinish], *, owner: int) -> bool:
        """End runs of an owner, and let their jobs go on, held by nothing and without an error; those that are done are disabled.

        Only if nothing has changed since the claims: each of the runs, none of them told twice, goes on and nobody has asked for its end;
        it holds its job, which has no other open run, is enabled, has not crashed, is not to be deleted after the run, and has the next
        moment that is told.

        Returns:
            Whether that holds for all of them; else nothing is changed.
        """
        ...

    def mark_runs(self, ids: Sequence[int], *, cause: str | None = None, cancel_requested: bool = False) -> None:
        """Note on running runs why they are being stopped, or that somebody asked for it."""
        ...

    def advance_pending(self, *, now: Millis, by: Millis) -> None:
        """Move pending runs that are ready later than ``now`` earlier: a further attempt by that much, not before ``now``.

        A first attempt is ready at once: its time had come when it was entered.
        """
        ...

    def runs(self, ids: Sequence[int]) -> dict[int, RunRow]:
        """The runs of those ids that exist."""
        ...

    def open_runs(self, job_ids: Sequence[str]) -> list[RunRow]:
        """Pending and running runs of those jobs, in order of ready_at and id."""
        ...

    def running(self, *, owner: int | None = None) -> list[RunRow]:
        """Runs that go on, of one owner or of all."""
        ...

    def count_running(self) -> int:
        """How many runs go on, whoever owns them."""
        ...

    def session_busy(self, session: str) -> bool:
        """Whether a run that goes on uses the session."""
        ...

    def first_waiting_run(self, key: str) -> int | None:
        """The run that has waited longest for ``key``."""
        ...

    def list_runs(self, *, job_id: str | None, before: RunRow | None, limit: int) -> list[RunRow]:
        """History, newest first.

        Args:
            job_id: Only that job's, in order of moment; None: all, in order of id.
            before: The last row of the page before; None: from the newest.
            limit: How many at most.
        """
        ...

    def runs_around(self, job_id: str, *, at: Millis) -> tuple[RunRow | None, RunRow | None]:
        """The job's runs next to a moment, those asked for left out.

        Returns:
            The last attempt of the moment ``at``, or of the latest before it; the first attempt of the earliest after it.
        """
        ...

    def insert_owner(self, row: OwnerRow) -> int:
        """Add an owner and answer its id."""
        ...

    def owners(self) -> list[OwnerRow]:
        """All owners."""
        ...

    def renew_lease(self, owner: int, *, now: Millis, until: Millis, unless_later_than: Millis) -> None:
        """Let the lease end at ``until``, unless it lasts until ``unless_later_than`` and its last sign of life is none of the future."""
        ...

    def delete_owners(self, ids: Sequence[int]) -> None:
        """Take owners away."""
        ...

    def meta(self, key: str) -> str | None:
        """A fact about the storage as a whole, as JSON; None if it was never set."""
        ...

    def set_meta(self, key: str, value: str | None) -> None:
        """Set a fact, or forget it."""
        ...

    def origins(self) -> list[OriginRow]:
        """The origins that jobs have."""
        ...

    def set_origin(self, name: str, file: str | None) -> None:
        """Note which file lists the jobs of an origin; None: forget it."""
        ...

    def mark_stopping(self, owner: int) -> None:
        """Mark an owner as asked to stop, beside what is stored: at once, on any thread, inside or outside of a transaction.

        Raises:
            OSError: The mark cannot be made.
        """
        ...

    def stopping_owners(self) -> set[int]:
        """The owners that are marked so, whether or not they exist."""
        ...

    def unmark_stopping(self, owner: int) -> None:
        """Remove the mark of an owner when this transaction is committed."""
        ...
