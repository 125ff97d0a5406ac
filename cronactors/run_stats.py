"""Figures about the runs of a job, a tag or a whole store: rows in, figures out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

import attrs

from cronactors.instants import Millis, from_millis
from cronactors.model import Cause, RunStatus
from cronactors.storage.history import RunFigures

MOST_FIGURES: Final = 10_000
"""Over how many runs figures are made at most: the newest."""


@attrs.frozen(kw_only=True)
class RunStats:
    """Figures about the newest runs that match, at most 10,000.

    A percentile is one of the values itself: p99 is the least value that is not exceeded by 99 % of them. It is None if there are no
    values.

    Attributes:
        runs: How many runs these figures are about.
        complete: Whether these are all that match; False: there are older ones, too.
        oldest: The moment of the earliest of them, UTC; None if there are none.
        by_status: How many have each status; a status that none has is 0.
        by_cause: How many have each cause; a cause that none has is 0.
        duration_p50: Median of the time (s) from start to end, of the runs that started and have ended, whatever their outcome.
        duration_p95: Its 95th percentile (s).
        duration_p99: Its 99th percentile (s).
        duration_max: The longest (s).
        lateness_p50: Median of the time (s) from the moment to the start, of the first attempts that have started. For a run that a
            user requested, it counts from the request.
        lateness_p95: Its 95th percentile (s).
        lateness_p99: Its 99th percentile (s).
        lateness_max: The longest (s).
    """

    runs: int
    complete: bool
    oldest: datetime | None
    by_status: Mapping[RunStatus, int]
    by_cause: Mapping[Cause, int]
    duration_p50: float | None
    duration_p95: float | None
    duration_p99: float | None
    duration_max: float | None
    lateness_p50: float | None
    lateness_p95: float | None
    lateness_p99: float | None
    lateness_max: float | None


def percentile(ordered: Sequence[Millis], percent: int) -> float | None:
    """Return a percentile (s) of values (ms) in ascending order; None if there are none."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] / 1000 if ordered else None


def stats_of(figures: Sequence[RunFigures], *, complete: bool) -> RunStats:
    """Make the figures of runs. A status or cause that is not known, since the row is damaged, is not counted."""
    statuses = Counter(run.status for run in figures)
    causes = Counter(run.cause for run in figures)
    durations = sorted(
        run.completed_at - run.started_at for run in figures if run.started_at is not None and run.completed_at is not None
    )
    lateness = sorted(run.started_at - run.scheduled_at for run in figures if run.started_at is not None and run.attempt == 1)
    oldest = min((run.scheduled_at for run in figures), default=None)
    return RunStats(
        runs=len(figures),
        complete=complete,
        oldest=None if oldest is None else from_millis(oldest),
        by_status=MappingProxyType({status: statuses[status] for status in RunStatus}),
        by_cause=MappingProxyType({cause: causes[cause] for cause in Cause}),
        duration_p50=percentile(durations, 50),
        duration_p95=percentile(durations, 95),
        duration_p99=percentile(durations, 99),
        duration_max=percentile(durations, 100),
        lateness_p50=percentile(lateness, 50),
        lateness_p95=percentile(lateness, 95),
        lateness_p99=percentile(lateness, 99),
        lateness_max=percentile(lateness, 100),
    )
