"""Rows of the table pauses, and the verbs of a storage on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cronactors.instants import Millis


class PauseRow(NamedTuple):
    """The last pause of a job. Statements name the columns in this order.

    Attributes:
        paused_at: When it began.
        until_at: When it ends by itself; None: when a user resumes the job.
        resumed_at: When it ended; None: it lasts, unless the job is enabled.
        note: Why the job was paused.
    """

    job_id: str
    paused_at: Millis
    until_at: Millis | None
    resumed_at: Millis | None
    note: str


class PauseTable(Protocol):
    """The verbs on pauses. They belong inside a transaction, as all verbs of a `Storage`. A pause leaves with its job."""

    def put(self, rows: Sequence[PauseRow]) -> None:
        """Store the last pauses of existing jobs, in place of those before."""
        ...

    def of(self, job_ids: Sequence[str]) -> dict[str, PauseRow]:
        """Return the last pauses of those jobs that were ever paused."""
        ...

    def to_end(self, *, now: Millis, limit: int) -> list[PauseRow]:
        """Return pauses that last, and were to end by now; in order of that time."""
        ...
