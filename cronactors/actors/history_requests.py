"""The requests of `CronStore` that read the history, page by page. `apply` runs on the storage thread."""

from __future__ import annotations

import attrs

from cronactors.actors.mailbox import ReadRequest
from cronactors.instants import Millis
from cronactors.ledger import explain, history, jobs, stored_values
from cronactors.model import Explanation
from cronactors.storage.history import HistoryPage, RunFigures, RunFilter, Span
from cronactors.storage.protocol import Storage


@attrs.frozen
class PageOfRuns(ReadRequest[HistoryPage]):
    """Read a page of the history, newest first, and return with it the span that is left to read.

    ``span`` is the one that the page before left; None: this is the first page, after the run ``after`` if there is one.
    """

    wanted: RunFilter
    span: Span | None
    limit: int
    after: int | None = None

    def apply(self, storage: Storage) -> HistoryPage:
        span = self.span or history.span_of(storage, self.wanted, after=self.after)
        every_row = self.wanted == RunFilter(job_id=self.wanted.job_id)
        return storage.history.page(self.wanted, span, limit=self.limit, read=self.limit if every_row else history.READ)


@attrs.frozen
class CountRuns(ReadRequest[tuple[int, Span | None]]):
    """Count runs of a part of the history, and return with it the span that is left to count."""

    wanted: RunFilter
    span: Span | None

    def apply(self, storage: Storage) -> tuple[int, Span | None]:
        span = self.span or history.span_of(storage, self.wanted)
        return storage.history.count(self.wanted, span, read=history.READ)


@attrs.frozen
class FiguresOfRuns(ReadRequest[tuple[list[RunFigures], Span | None]]):
    """Read the figures of runs of a part of the history, and return with them the span that is left to read."""

    wanted: RunFilter
    span: Span | None
    limit: int

    def apply(self, storage: Storage) -> tuple[list[RunFigures], Span | None]:
        span = self.span or history.span_of(storage, self.wanted)
        return storage.history.figures(self.wanted, span, limit=self.limit, read=history.READ)


@attrs.frozen
class Explain(ReadRequest[Explanation]):
    """Explain a moment of a job: whether it ran or will run, or why not."""

    job_id: str
    at: Millis

    def apply(self, storage: Storage) -> Explanation:
        job = jobs.find_job(storage, self.job_id)
        stored_values.check_policies(job)
        return explain.explain(storage, job, self.at)
