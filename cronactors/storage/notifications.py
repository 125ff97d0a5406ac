"""Rows of the tables notifications and alert_episodes, and the verbs of a storage on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from cronactors.ids import row_number
from cronactors.instants import Millis

ANY_OWNER: Final = 0
"""`NotificationRow.owner` of one that any scheduler with its receiver may deliver."""
AT_ONCE: Final[Millis] = 0
"""`NotificationRow.ready_at` of one that may be delivered at once. No change of the clock can put it behind another."""
PAGE_OF_IDS: Final = 10_000
"""How many ids one page spans at most, so that a rare status blocks the thread for a millisecond."""


class NotificationRow(NamedTuple):
    """A notification: one event for one receiver. Statements name the columns in the order of these fields.

    The pending notifications of one job for one receiver are a line, in order of id. At most one of a line is ready at a time.

    Attributes:
        id: Grows with every row. For one job and receiver it is the order of delivery. 0 in a row that is not stored yet.
        key: The stable key of an alert; None: the row is about a run, and the key is ``run:ID``.
        run_id: The run; None: an alert.
        receiver: The name of the receiver.
        status: ``pending``, ``delivered`` or ``given_up``.
        attempts: How many calls have failed.
        ready_at: From when on it may be delivered; 0: at once. None: an earlier one of its line is pending.
        owner: The scheduler that delivers it; `ANY_OWNER`: any that has this receiver.
        job_state: The state of the job after the run: JSON.
        job: The job, if it was removed before the delivery: JSON.
        alert: The alert: JSON.
        error: Why the last call failed.
    """

    id: int
    key: str | None
    run_id: int | None
    receiver: str
    job_id: str
    created_at: Millis
    status: str = "pending"
    attempts: int = 0
    ready_at: Millis | None = AT_ONCE
    owner: int = ANY_OWNER
    job_state: str | None = None
    job: str | None = None
    alert: str | None = None
    error: str | None = None

    def __repr__(self) -> str:
        """Leave out the texts of users and of their functions."""
        return f"NotificationRow({self.id}, {self.event_key!r}, {self.receiver!r}, {self.status!r}, ready_at={self.ready_at})"

    @property
    def event_key(self) -> str:
        """The stable key of its event, as users see it."""
        return f"run:{self.run_id}" if self.key is None else self.key

    def stored(self, number: int, ready_at: Millis | None) -> NotificationRow:
        """Return the row as it is stored; `_replace` would take four times as long."""
        return NotificationRow(number, *self[1:8], ready_at, *self[9:])

    @property
    def line(self) -> tuple[str, str]:
        """Receiver and job: one after the other is delivered."""
        return self.receiver, self.job_id


def run_of_key(event_key: str) -> int | None:
    """Return the run that a stable key names; None: it is the key of an alert, or of nothing."""
    kind, _, number = event_key.partition(":")
    return row_number(number) if kind == "run" else None


class Settlement(NamedTuple):
    """The columns to store after a call for a pending notification, and its line."""

    id: int
    status: str
    attempts: int
    ready_at: Millis | None
    error: str | None
    receiver: str
    job_id: str


class EpisodeRow(NamedTuple):
    """An episode: a job is failing, or overdue, and there was an alert about it. The row is deleted when the episode is over.

    Attributes:
        since: When the episode began.
        alerted_at: When its last alert was written.
        alerted_count: The count in that alert.
    """

    job_id: str
    kind: str
    since: Millis
    alerted_at: Millis
    alerted_count: int


class NotificationTable(Protocol):
    """The verbs on notifications and on the episodes of alerts. They belong inside a transaction, as all verbs of a `Storage`."""

    def insert(self, rows: Sequence[NotificationRow]) -> list[NotificationRow]:
        """Add pending notifications, in this order, and return them as they are stored.

        One whose line has a pending one already is stored with ``ready_at`` None, any other with `AT_ONCE`. An alert whose key and
        receiver exist already is left out.
        """
        ...

    def settle(self, settlements: Sequence[Settlement], *, owner: int) -> list[NotificationRow]:
        """Store the results of calls; one whose notification is no longer ready changes nothing.

        Where a line is left without a ready notification, its first one becomes ready, and belongs to ``owner`` from now on: who
        delivered the one before delivers it next.

        Returns:
            The notifications that have become ready.
        """
        ...

    def reopen(self, row: NotificationRow) -> NotificationRow:
        """Make a settled notification pending again, without attempts and without an owner, and return it as it is stored.

        If its line has a pending one, it waits for that, whatever their ids are.
        """
        ...

    def ready(self, receiver: str, *, owner: int, now: Millis, limit: int) -> list[NotificationRow]:
        """Return notifications that the owner may deliver now: first those that are tried again, then in order of id."""
        ...

    def next_retry(self, receiver: str, *, owner: int, now: Millis) -> Millis | None:
        """Return the earliest time later than now at which the owner may deliver a notification."""
        ...

    def ready_lines(self) -> list[tuple[int, str]]:
        """Return each pair of owner and receiver that has notifications which are not waiting for an earlier one."""
        ...

    def take_over(self, receiver: str, *, owner: int, by: int, limit: int) -> int:
        """Move notifications that wait for no other one from an owner to another; return how many were moved."""
        ...

    def advance_retries(self, *, now: Millis, by: Millis) -> None:
        """Let notifications that are ready later than ``now`` be ready so many milliseconds earlier, but not before ``now``.

        All receivers with pending ones are woken, see `take_woken`.
        """
        ...

    def keep_jobs(self, jobs: Mapping[str, str], *, without: str) -> None:
        """Store jobs that are about to be deleted in their notifications, but for those of one receiver.

        ``jobs`` has the column of each by its id.

        In those that are pending, and in those that were given up, since they can be reopened.
        """
        ...

    def count_pending(self, *, most: int) -> int:
        """Count the pending notifications of all owners and receivers, to ``most``."""
        ...

    def find(self, event_key: str) -> list[NotificationRow]:
        """Return the notifications of an event, by its stable key, in order of id."""
        ...

    def page(
        self, *, before: int | None, status: str | None, receiver: str | None, limit: int
    ) -> tuple[list[NotificationRow], int | None]:
        """Return notifications, newest first.

        Args:
            before: Only lower ids; None: from the newest.
            status: Only those; None: all.
            receiver: Only those; None: all.
            limit: How many at most.

        Returns:
            The notifications, and ``before`` of the next page, which may be empty; None after the last one.
        """
        ...

    def take_woken(self) -> frozenset[str]:
        """Return the receivers that have something to deliver which no reply shows, since this was called last.

        An alert was inserted for them, one of theirs was reopened, or times of retries were moved.
        """
        ...

    # Episodes of alerts

    def episodes(self, job_ids: Sequence[str], kind: str) -> dict[str, EpisodeRow]:
        """Return the episodes of a kind that jobs are in, by job."""
        ...

    def store_episodes(self, rows: Sequence[EpisodeRow]) -> None:
        """Store episodes, in place of those of the same job and kind."""
        ...

    def end_episodes(self, job_ids: Sequence[str], kind: str | None = None) -> None:
        """Delete the episodes of jobs, of one kind or of all."""
        ...
