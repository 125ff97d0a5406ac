"""Reading the history by SQL, window by window; `history` documents the verbs.

We never let the database look for the next run that matches: it might read a history of a million rows before it finds one, while every
claim waits. Each verb first finds the last row of a window, by a walk along an index that skips a fixed number of rows, and then
filters the rows of that window. There are four walks: along the ids, along the moments of a job, and along the ids of the runs that
did not succeed or are running, which are few.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

from cronactors.storage.history import HistoryPage, Place, RunFigures, RunFilter, Span
from cronactors.storage.rows import RunRow
from cronactors.storage.values import Value, integer

_Statement = TypeVar("_Statement")


@attrs.frozen
class Walk(Generic[_Statement]):
    """The statements that walk along one index."""

    window: _Statement
    page: _Statement
    count: _Statement


@attrs.frozen(kw_only=True)
class Walks(Generic[_Statement]):
    """The four walks through a history, and the statements that read the figures of runs on two of them."""

    by_id: Walk[_Statement]
    unsuccessful: Walk[_Statement]
    running: Walk[_Statement]
    of_job: Walk[_Statement]
    figures_by_id: _Statement
    figures_of_job: _Statement

    def to_find(self, wanted: RunFilter) -> Walk[_Statement]:
        """Return the walk that passes the fewest rows which are not wanted."""
        if wanted.job_id is not None:
            return self.of_job
        if wanted.status == "running":
            return self.running
        return self.unsuccessful if wanted.status in ("failed", "cancelled", "skipped") else self.by_id


class HistoryReader(Generic[_Statement]):
    """The verbs of a `HistoryTable` that read a span. A storage adds its statements, and how they are carried out."""

    walks: Walks[_Statement]

    def _rows(self, statement: _Statement, values: dict[str, Value]) -> list[tuple[Value, ...]]:
        """Return the rows of a query."""
        raise NotImplementedError

    def _window(self, walk: Walk[_Statement], wanted: RunFilter, span: Span, read: int) -> tuple[Span, Span | None]:
        """Split a span into its first ``read`` rows along a walk, and the rest of it."""
        rows = self._rows(walk.window, _parameters(wanted, span, skipped=read - 1))
        if not rows:
            return span, None
        last, of_job = Place._make(map(integer, rows[0])), wanted.job_id is not None
        return span.from_place(last, of_job=of_job), span.below(last, of_job=of_job)

    def page(self, wanted: RunFilter, span: Span, *, limit: int, read: int) -> HistoryPage:
        """Return a page of runs."""
        walk = self.walks.to_find(wanted)
        window, rest = self._window(walk, wanted, span, read)
        rows = list(map(RunRow._make, self._rows(walk.page, _parameters(wanted, window, limit=limit))))
        if len(rows) == limit:
            rest = span.below(Place.of(rows[-1]), of_job=wanted.job_id is not None)
        return HistoryPage(rows, rest)

    def count(self, wanted: RunFilter, span: Span, *, read: int) -> tuple[int, Span | None]:
        """Count runs."""
        walk = self.walks.to_find(wanted)
        window, rest = self._window(walk, wanted, span, read)
        return integer(self._rows(walk.count, _parameters(wanted, window))[0][0]), rest

    def figures(self, wanted: RunFilter, span: Span, *, limit: int, read: int) -> tuple[list[RunFigures], Span | None]:
        """Return the figures of runs."""
        walks, of_job = self.walks, wanted.job_id is not None
        walk, statement = (walks.of_job, walks.figures_of_job) if of_job else (walks.by_id, walks.figures_by_id)
        window, rest = self._window(walk, wanted, span, read)
        rows = self._rows(statement, _parameters(wanted, window, limit=limit))
        columns = len(Place._fields)
        if len(rows) == limit:
            rest = span.below(Place._make(map(integer, rows[-1][:columns])), of_job=of_job)
        return [RunFigures._make(row[columns:]) for row in rows], rest


def _parameters(wanted: RunFilter, span: Span, **others: Value) -> dict[str, Value]:
    """Return the values of the parameters of a statement that reads a span."""
    before, down_to = span.before, span.down_to
    return {
        **wanted._asdict(),
        "first": span.first,
        "end": span.end,
        "before_at": before.scheduled_at,
        "before_manual": before.manual,
        "before_attempt": before.attempt,
        "down_to_at": down_to.scheduled_at,
        "down_to_manual": down_to.manual,
        "down_to_attempt": down_to.attempt,
        **others,
    }
