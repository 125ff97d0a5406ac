"""Rows of the tables notifications and alerts, and the verbs of a storage on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cronactors.instants import Millis


class NotificationRow(NamedTuple):
    """A notification: one event for one receiver. Statements name the columns in the order of these fields.

    Attributes:
        id: Grows with every row. For one job and receiver it is the order of delivery. 0 in a row that is not stored yet.
        key: The stable key of an alert; None: the row is about a run, and the key is ``run:ID``.
        run_id: The run; None: an alert.
        receiver: The name of the receiver.
        status: ``pending``, ``delivered`` or ``given_up``.
        attempts: How many calls have failed.
        ready_at: From when on it may be delivered; 0: at once. None: an earlier one of this job and receiver is pending.
        owner: The scheduler that delivers it; None: the first that has this receiver.
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
    ready_at: Millis | None = 0
    owner: int | None = None
    job_state: str | None = None
    job: str | None = None
    alert: str | None = None
    error: str | None = None


class AlertRow(NamedTuple):
    """What has been said of a job: one row for each kind while its episode lasts.

    Attributes:
        since: When the episode began.
        said_at: When its last alert was written.
        times: The count in that alert.
    """

    job_id: str
    kind: str
    since: Millis
    said_at: Millis
    times: int


class NotificationTable(Protocol):
    """The verbs on notifications. They belong inside a transaction, as all verbs of a `Storage`."""

    def insert(self, rows: Sequence[NotificationRow]) -> list[NotificationRow]:
        """Add notifications, in this order, and return them as they are stored.

        One whose job and receiver have a pending one already is stored with ``ready_at`` None. An alert whose key and receiver
        exist already is left out.
        """
        ...
