"""Rows of the table run_requests, and the verbs of a storage on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cronactors.instants import Millis
from cronactors.storage.rows import RunRow


class RunRequestRow(NamedTuple):
    """The request of a run; all attempts of its moment share it. Statements name the columns in this order.

    Attributes:
        scheduled_at: The moment of the requested run.
        key: Of two requests with one key for the job the first counts; None: it has none.
        data: JSON; None: the run has the data of its job.
    """

    job_id: str
    scheduled_at: Millis
    key: str | None
    data: str | None

    def __repr__(self) -> str:
        """Leave out the data, which may hold a secret."""
        return f"RunRequestRow(job_id={self.job_id!r}, scheduled_at={self.scheduled_at}, key={self.key!r})"


class RunRequestTable(Protocol):
    """The verbs on requests. They belong inside a transaction, as all verbs of a `Storage`."""

    def insert(self, row: RunRequestRow) -> None:
        """Add a request. A row of the same moment, or of the same key, of the job is replaced: its run is gone from the history."""
        ...

    def of_moment(self, job_id: str, *, at: Millis) -> RunRequestRow | None:
        """Return the request for a moment of a job, if its run was requested with data or a key."""
        ...

    def of_key(self, job_id: str, *, key: str) -> RunRequestRow | None:
        """Return the request that has a key."""
        ...

    def last_run(self, job_id: str, *, at: Millis) -> RunRow | None:
        """Return the last attempt of a requested moment; None if it is no longer in the history."""
        ...

    def delete(self, moments: Sequence[tuple[str, Millis]]) -> None:
        """Delete the requests for moments, each with the id of its job: their runs leave the history."""
        ...
