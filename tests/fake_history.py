"""The verbs that read the history, on plain dicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from cronactors.storage.history import HistoryPage, Place, RunFigures, RunFilter, RunTimes, Span
from cronactors.storage.rows import JobRow, RunRow


def in_order(place: Place) -> tuple[int, int, int]:
    return place.scheduled_at, place.manual, place.attempt


def time_of(run: RunRow) -> int:
    return next(at for at in (run.started_at, run.completed_at, run.ready_at) if at is not None)


class FakeHistory:
    """A `HistoryTable`. A window holds ``read`` rows of the span, whether or not they are wanted."""

    def __init__(self, jobs: Callable[[], Mapping[str, tuple[int, JobRow]]], runs: Callable[[], Mapping[int, RunRow]]) -> None:
        self._jobs, self._runs = jobs, runs

    def _is_wanted(self, run: RunRow, wanted: RunFilter) -> bool:
        return (
            wanted.user_id in (None, run.user_id)
            and wanted.status in (None, run.status)
            and wanted.cause in (None, run.cause)
            and wanted.trigger in (None, run.trigger)
            and (wanted.since is None or time_of(run) >= wanted.since)
            and (wanted.until is None or time_of(run) < wanted.until)
            and (
                wanted.tag is None or (run.job_id in self._jobs() and wanted.tag in json.loads(self._jobs()[run.job_id][1].tags))
            )
        )

    def _window(self, wanted: RunFilter, span: Span, read: int, limit: int | None = None) -> tuple[list[RunRow], Span | None]:
        of_job = wanted.job_id is not None
        rows = [run for run in self._runs().values() if wanted.job_id in (None, run.job_id) and span.first <= run.id < span.end]
        if of_job:
            rows = [run for run in rows if in_order(span.down_to) <= in_order(Place.of(run)) < in_order(span.before)]
        rows.sort(key=lambda run: in_order(Place.of(run)) if of_job else run.id, reverse=True)
        found = [run for run in rows[:read] if self._is_wanted(run, wanted)][:limit]
        last = found[-1] if limit is not None and len(found) == limit else rows[read - 1] if len(rows) >= read else None
        return found, None if last is None else span.below(Place.of(last), of_job=of_job)

    def page(self, wanted: RunFilter, span: Span, *, limit: int, read: int) -> HistoryPage:
        return HistoryPage(*self._window(wanted, span, read, limit))

    def count(self, wanted: RunFilter, span: Span, *, read: int) -> tuple[int, Span | None]:
        rows, rest = self._window(wanted, span, read)
        return len(rows), rest

    def figures(self, wanted: RunFilter, span: Span, *, limit: int, read: int) -> tuple[list[RunFigures], Span | None]:
        rows, rest = self._window(wanted, span, read, limit)
        return [RunFigures(*(getattr(run, name) for name in RunFigures._fields)) for run in rows], rest

    def place(self, run_id: int, *, job_id: str) -> Place | None:
        run = self._runs().get(run_id)
        return Place.of(run) if run is not None and run.job_id == job_id else None

    def times_from(self, run_id: int) -> RunTimes | None:
        run = min((run for run in self._runs().values() if run.id >= run_id), key=lambda run: run.id, default=None)
        if run is None:
            return None
        return RunTimes(run.id, run.scheduled_at, run.completed_at if run.started_at is None else run.started_at)
