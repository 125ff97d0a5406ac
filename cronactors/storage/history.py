"""Filters, spans and rows of the history of runs, and the verbs of a storage that read it.

A history has no end that we could count on, so each verb looks at a bounded number of rows and returns the span that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from cronactors.instants import LATEST, Millis
from cronactors.storage.rows import RunRow


class RunFilter(NamedTuple):
    """Which runs are wanted; None: any.

    Attributes:
        job_id: Runs of this job.
        user_id: Runs of this user; "" is the agent itself.
        status: With this status.
        cause: With this cause.
        trigger: With this trigger.
        tag: Of jobs that exist and have this tag now.
        since: Whose time is not before this one. The time of a run is that of its start; of a run that never started, when that
            was recorded; of a pending run, from when on it may start.
        until: Whose time is before this one.
    """

    job_id: str | None = None
    user_id: str | None = None
    status: str | None = None
    cause: str | None = None
    trigger: str | None = None
    tag: str | None = None
    since: Millis | None = None
    until: Millis | None = None


class Place(NamedTuple):
    """The place of a run in the history: by its id among the runs of all jobs, by the other fields among those of its job."""

    id: int
    scheduled_at: Millis
    manual: int
    attempt: int

    @classmethod
    def of(cls, run: RunRow) -> Place:
        """Return the place of a run."""
        return cls(run.id, run.scheduled_at, run.manual, run.attempt)


NEWEST: Final = Place(2**63 - 1, 2 * LATEST, 0, 0)
OLDEST: Final = Place(0, -1, 0, 0)


class Span(NamedTuple):
    """A part of the history: the runs with ids from ``first`` on and below ``end``.

    Attributes:
        before: In the history of one job, only the runs below this place.
        down_to: In the history of one job, only the runs from this place on.
    """

    first: int
    end: int
    before: Place = NEWEST
    down_to: Place = OLDEST

    def below(self, place: Place, *, of_job: bool) -> Span:
        """Return the older part of it, without the place itself."""
        return self._replace(before=place) if of_job else self._replace(end=place.id)

    def from_place(self, place: Place, *, of_job: bool) -> Span:
        """Return the newer part of it, with the place itself."""
        return self._replace(down_to=place) if of_job else self._replace(first=place.id)


class RunTimes(NamedTuple):
    """The times of a run by which we know when its row was added: not before the first, and not after the second.

    Attributes:
        recorded_at: When it started, or when it was recorded that it did not; None: it is pending.
    """

    id: int
    scheduled_at: Millis
    recorded_at: Millis | None


class RunFigures(NamedTuple):
    """The columns of a run from which figures are made."""

    status: str
    cause: str | None
    attempt: int
    scheduled_at: Millis
    started_at: Millis | None
    completed_at: Millis | None


class HistoryPage(NamedTuple):
    """A page of the history, newest first, and what is left to read; None: nothing."""

    rows: Sequence[RunRow]
    rest: Span | None


class HistoryTable(Protocol):
    """The verbs that read the history. They belong inside a transaction, as all verbs of a `Storage`.

    The runs of all jobs are in order of id, those of one job (``wanted.job_id``) in order of moment, the newest first. ``read``
    says how many rows of the span are looked at, at most; the span that is returned begins below them.
    """

    def page(self, wanted: RunFilter, span: Span, *, limit: int, read: int) -> HistoryPage:
        """Return the first runs of a span that are wanted, at most ``limit``."""
        ...

    def count(self, wanted: RunFilter, span: Span, *, read: int) -> tuple[int, Span | None]:
        """Count the runs of the first part of a span that are wanted."""
        ...

    def figures(self, wanted: RunFilter, span: Span, *, limit: int, read: int) -> tuple[list[RunFigures], Span | None]:
        """Return the figures of the first runs of a span that are wanted, at most ``limit``."""
        ...

    def place(self, run_id: int, *, job_id: str) -> Place | None:
        """Return the place of a run of a job; None if the job has no such run."""
        ...

    def times_from(self, run_id: int) -> RunTimes | None:
        """Return the times of the first run whose id is not less; None if there is none."""
        ...
