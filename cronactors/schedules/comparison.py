"""Which times at which a schedule fires change, if another schedule takes its place. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Self

import attrs

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.model import CronJob
from cronactors.schedules.fire_times import fire_times
from cronactors.schedules.schedule import Interval, Schedule

MAX_DIFFERENCES = 100_000
"""The most differences of one comparison."""


_MOST_KEPT = 200_000


@attrs.frozen
class Timetable:
    """A schedule with what else decides when it fires.

    Args:
        schedule: A `Cron`, `Interval` or `OneShot`.
        timezone: The IANA name of the zone in which local times are read; None for UTC.
        anchor: When an interval began; None for the beginning of the comparison. Other schedules ignore it.
    """

    schedule: Schedule
    timezone: str | None = None
    anchor: datetime | None = None

    @classmethod
    def of(cls, job: CronJob) -> Self:
        """Return that of a job. A paused interval counts from when the job was added."""
        anchor = job.created_at
        if isinstance(job.schedule, Interval) and job.next_run_at is not None:
            anchor = job.next_run_at - timedelta(milliseconds=job.schedule.every_ms)
        return cls(job.schedule, job.timezone, anchor)


@attrs.frozen
class FireTimeChanges:
    """The differences between two timetables.

    Attributes:
        gone: Times of the old one at which the new one does not fire, in order: aware UTC datetimes.
        new: Times of the new one at which the old one does not fire, in order.
        kept: How many times they have in common.
        until: How far they were compared: until the end that was asked for, or as far as the limit allowed.
    """

    gone: list[datetime]
    new: list[datetime]
    kept: int
    until: datetime


def compare_fire_times(
    old: Timetable, new: Timetable, *, since: datetime, until: datetime, limit: int = 10_000
) -> FireTimeChanges:
    """Find the times that a schedule would lose and gain, if another one took its place.

    Args:
        old: The timetable as it is.
        new: The one that would replace it.
        since: An aware datetime; times are later.
        until: An aware datetime; times are earlier.
        limit: After how many differences to stop, 1 to 100,000. It also stops after 200,000 times that both have, some 2 s.

    Raises:
        InvalidSchedule: As `next_run`; or ``limit`` is not a whole number, or out of range.
    """
    checks.whole("limit", limit, InvalidSchedule, least=1, most=MAX_DIFFERENCES)
    for field, value in (("since", since), ("until", until)):
        checks.instant(field, value, InvalidSchedule)
    for field, timetable in (("old", old), ("new", new)):
        if not isinstance(timetable, Timetable):
            raise InvalidSchedule(f"{field} must be a Timetable, not {shorten(timetable)}")
    before, after = _times(old, since, until), _times(new, since, until)
    gone: list[datetime] = []
    added: list[datetime] = []
    kept = 0
    lost, won = next(before, None), next(after, None)
    while lost is not None or won is not None:
        if len(gone) + len(added) == limit or kept == _MOST_KEPT:
            return FireTimeChanges(gone, added, kept, min(each for each in (lost, won) if each is not None))
        if lost == won:
            kept += 1
            lost, won = next(before, None), next(after, None)
        elif won is None or (lost is not None and lost < won):
            assert lost is not None
            gone.append(lost)
            lost = next(before, None)
        else:
            added.append(won)
            won = next(after, None)
    return FireTimeChanges(gone, added, kept, until)


def _times(timetable: Timetable, since: datetime, until: datetime) -> Iterator[datetime]:
    return fire_times(timetable.schedule, after=since, before=until, timezone=timetable.timezone, anchor=timetable.anchor)
