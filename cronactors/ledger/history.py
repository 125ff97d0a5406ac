"""Finds the part of the history that a filter concerns. Runs on the storage thread.

There is no index on times, which every run would pay for. But ids grow with time, so we find ``since`` and ``until`` among them by
bisection, some 20 rows. A row says when its run started, and not when the row was added: between the two lies the time for which the
run waited. So we only use that a row was added no later than its run started, and no earlier than its moment; and we take `MARGIN`
more on either side. The span then holds all runs that are wanted, unless a run waited for longer than the margin, or the clock was set
back by more than that. Which of its runs are wanted is decided by the filter, for each row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cronactors.instants import DAY, Millis
from cronactors.storage.history import RunFilter, RunTimes, Span
from cronactors.storage.protocol import Storage

MARGIN: Final[Millis] = DAY
"""For how long a run may wait, or by how much the clock may be set back, without being left out of a span."""
READ: Final = 2_000
"""How many rows one transaction looks at, at most."""


def span_of(storage: Storage, wanted: RunFilter, *, after: int | None = None) -> Span:
    """Return the part of the history in which the wanted runs are.

    Args:
        storage: Inside a transaction.
        wanted: The runs that are wanted.
        after: Only runs that are listed after this one. If the job has no such run any more, those with smaller ids.
    """
    since, until = wanted.since, wanted.until
    ids = storage.pruning.run_ids()
    first, end = 0, 1 if ids is None else ids[1] + 1
    if since is not None:
        first = _first_id(storage, end, lambda run: run.recorded_at is None or run.recorded_at >= since - MARGIN)
    if until is not None:
        end = _first_id(storage, end, lambda run: run.scheduled_at >= until + MARGIN)
    if after is None:
        return Span(first, end)
    place = None if wanted.job_id is None else storage.history.place(after, job_id=wanted.job_id)
    return Span(first, min(end, after)) if place is None else Span(first, end, before=place)


def _first_id(storage: Storage, end: int, holds: Callable[[RunTimes], bool]) -> int:
    """Return the least id below ``end`` from which on runs meet a condition, or ``end``: met by one run, it is met by all later ones."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        run = storage.history.times_from(middle)
        if run is None or holds(run):
            high = middle
        else:
            low = run.id + 1
    return low
