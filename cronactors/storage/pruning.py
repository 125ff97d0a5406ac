"""Rows that the pruning of history reads, and the verbs of a storage for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from cronactors.instants import LATEST, Millis


class PassedRun(NamedTuple):
    """A run on the way through the history in order of id.

    Attributes:
        at: When it finished; of an open run when it started, or when it may start.
        began_at: When it started; of a run that never did, `at`.
    """

    id: int
    job_id: str
    at: Millis
    began_at: Millis


class Position(NamedTuple):
    """The place of a run in the history of its job: the columns of the index runs_of_job."""

    scheduled_at: Millis
    manual: int
    attempt: int


NEWEST: Final = Position(2 * LATEST, 0, 0)


class KeptRun(NamedTuple):
    """A run of a job, with the columns that decide whether it is pruned. Statements name the columns in the order of these fields."""

    id: int
    scheduled_at: Millis
    manual: int
    attempt: int
    status: str
    started_at: Millis | None
    completed_at: Millis | None
    range_at: Millis | None

    @property
    def last_moment(self) -> Millis:
        """The last of the moments that it stands for."""
        return self.scheduled_at if self.range_at is None else max(self.scheduled_at, self.range_at)


class PassedNotification(NamedTuple):
    """A notification on the way through all of them in order of id.

    Attributes:
        run_id: The run; None: an alert.
        ready_at: None: it waits for another one of its line, or is not pending.
    """

    id: int
    run_id: int | None
    receiver: str
    job_id: str
    status: str
    created_at: Millis
    ready_at: Millis | None


class PendingNotification(NamedTuple):
    """A notification of a run that waits for its delivery.

    Attributes:
        ready_at: None: it waits for another one of its line.
    """

    run_id: int
    receiver: str
    job_id: str
    ready_at: Millis | None


class PruningTable(Protocol):
    """The verbs of pruning. They belong inside a transaction, as all verbs of a `Storage`."""

    def run_ids(self) -> tuple[int, int] | None:
        """Return the smallest and the greatest id of a run; None if there is none."""
        ...

    def runs_after(self, run_id: int, *, limit: int) -> list[PassedRun]:
        """Return the next runs in order of id."""
        ...

    def next_job(self, job_id: str) -> str | None:
        """Return the next job that has runs, in the order of the index runs_of_job; None: there is none after ``job_id``."""
        ...

    def position(self, job_id: str, *, before: Position | None, skip: int) -> Position | None:
        """Return where a job's history has a run, counted from its newest moment on.

        Args:
            job_id: The job, which may have been removed.
            before: Only runs before this one; None: from the newest.
            skip: How many runs are passed over.
        """
        ...

    def oldest_runs(self, job_id: str, *, after: Millis, until: Millis, limit: int) -> list[KeptRun]:
        """Return runs of a job in the order of its history: those with moments later than ``after`` and not later than ``until``."""
        ...

    def pending(self, run_ids: Sequence[int]) -> list[PendingNotification]:
        """Return the pending notifications of these runs."""
        ...

    def delete_runs(self, job_id: str, runs: Sequence[KeptRun]) -> None:
        """Delete runs of a job, with all that is stored of them: their output, requests, progress and notifications."""
        ...

    def set_pruned_until(self, job_id: str, until: Millis) -> None:
        """Store the latest moment among the pruned runs of a job, if it exists."""
        ...

    def jobs_with_history(self, *, after: int, limit: int) -> list[tuple[int, str]]:
        """Return jobs with a `History` of their own, in order of their numbers, each with its number."""
        ...

    def notifications_after(self, notification_id: int, *, limit: int) -> list[PassedNotification]:
        """Return the next notifications in order of id."""
        ...

    def delete_notifications(self, ids: Sequence[int]) -> None:
        """Delete notifications."""
        ...

    def release_line(self, receiver: str, job_id: str) -> None:
        """Let the first pending notification of a job and receiver be delivered, when the one that was ready was deleted."""
        ...
