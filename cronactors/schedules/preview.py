"""The next moments of a schedule as the clock on the wall shows them, with a note where a clock change affects one. Pure."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import attrs

from cronactors import checks
from cronactors.errors import InvalidSchedule
from cronactors.instants import EARLIEST, from_millis, to_millis
from cronactors.schedules.clock_changes import DAY, clock_changes, segment_at, shown_twice
from cronactors.schedules.cron import parse_cron
from cronactors.schedules.fire_times import fire_times
from cronactors.schedules.local_times import LocalTimes
from cronactors.schedules.schedule import Cron, OneShot, Schedule
from cronactors.schedules.timestamps import read_timestamp
from cronactors.schedules.zones import load_zone

MAX_PREVIEWS = 10_000
"""The most moments of one preview."""


@attrs.frozen
class Preview:
    """One moment of a schedule.

    Args:
        at: The instant, an aware UTC datetime of whole milliseconds.
        local: The same instant in the zone of the schedule.
        note: The effect of a clock change on it, such as ``"02:30 does not exist: runs at 03:00"``; None if no change affects it.
    """

    at: datetime
    local: datetime
    note: str | None


def preview(
    schedule: Schedule, *, after: datetime, timezone: str | None = None, anchor: datetime | None = None, count: int = 5
) -> list[Preview]:
    """Compute the next moments of a schedule, and the effects of clock changes on them.

    A note is attached to: a time of day that the clock skips, at the moment after the jump when it runs; times of a rhythm that
    were skipped, at the first moment after them; and every moment whose local time is shown twice. The rules are those of Debian
    cron(8), see `Cron`. Intervals, and one-shots with an offset, don't depend on local time and have no notes.

    Args:
        schedule: A `Cron`, `Interval` or `OneShot`.
        after: An aware datetime; the moments are later.
        timezone: The IANA name of the zone in which local times are read; None for UTC.
        anchor: When an interval began; None for ``after``. Other schedules ignore it.
        count: How many moments, 0 to 10,000.

    Returns:
        The moments in order; fewer than ``count`` if the schedule ends before.

    Raises:
        InvalidSchedule: As `next_run`; or ``count`` is not a whole number, or out of range.
    """
    checks.whole("count", count, InvalidSchedule, least=0, most=MAX_PREVIEWS)
    moments = list(islice(fire_times(schedule, after=after, timezone=timezone, anchor=anchor), count))
    zone = timezone or "UTC"
    previews = []
    seen = max(to_millis(after), EARLIEST - 1) // 1000
    for at in moments:
        instant = to_millis(at) // 1000
        note = _note(schedule, zone, seen, instant)
        previews.append(Preview(at=at, local=at.astimezone(load_zone(zone)), note=note))
        seen = instant
    return previews


def local_text(local: int, *, same_day_as: int | None = None) -> str:
    """Write a local time (s), without its date if it lies on the same day as the other local time."""
    wall = from_millis(local * 1000)  # its fields are those of the local time, as we count both from 1970-01-01 00:00
    text = f"{wall:%H:%M:%S}" if wall.second else f"{wall:%H:%M}"
    if same_day_as is not None and local // DAY == same_day_as // DAY:
        return text
    return f"{wall.date()} {text}"


def _note(schedule: Schedule, zone: str, seen: int, instant: int) -> str | None:
    """Describe the effect of clock changes on the moment at ``instant``. Those up to ``seen`` belong to earlier moments."""
    if isinstance(schedule, OneShot):
        return _note_on_repeat(zone, instant, rhythm=False) if read_timestamp(schedule.at).local else None
    if not isinstance(schedule, Cron):
        return None
    times = parse_cron(schedule.expr)
    skip = _note_on_skipped_rhythm(times, zone, seen, instant) if times.rhythm else _note_on_skipped_time(times, zone, instant)
    return skip or _note_on_repeat(zone, instant, rhythm=times.rhythm)


def _note_on_skipped_time(times: LocalTimes, zone: str, instant: int) -> str | None:
    """Describe the moment right after a jump: it replaces all times that were skipped, and its own time if that matches."""
    for change in clock_changes(zone, instant - 1, instant + 1):
        low, high = change.skipped
        first, last = times.at_or_after(low), times.at_or_before(high - 1)
        if first is None or last is None or first >= high:
            return None
        own = times.at_or_after(high) == high
        runs_at = f"{'together with' if own else 'at'} {local_text(high, same_day_as=first)}"
        if first == last:
            return f"{local_text(first, same_day_as=high)} does not exist: runs {runs_at}"
        count = times.count(low, high, high - low)
        skipped = f"{local_text(first, same_day_as=high)} to {local_text(last, same_day_as=first)} ({count:,} times)"
        return f"{skipped} do not exist: run once {runs_at}"
    return None


def _note_on_skipped_rhythm(times: LocalTimes, zone: str, seen: int, instant: int) -> str | None:
    """Describe the times of a rhythm that the clock has skipped since the previous moment; of several jumps the latest one."""
    for change in reversed(list(clock_changes(zone, seen, instant + 1))):
        low, high = change.skipped
        if times.count(low, high, 1):
            here = instant + segment_at(zone, instant).offset
            return f"{local_text(low, same_day_as=here)} to {local_text(high, same_day_as=low)} does not exist: skipped"
    return None


def _note_on_repeat(zone: str, instant: int, *, rhythm: bool) -> str | None:
    """Describe which of two showings of its local time a moment is; None if it is shown once."""
    change = shown_twice(zone, instant)
    if change is None:
        return None
    local = instant + segment_at(zone, instant).offset
    twice = f"{local_text(local, same_day_as=local)} is shown twice"
    if not rhythm:
        return f"{twice}: runs the first time only"
    return f"{twice}: runs both times, this is the {'first' if instant < change.at else 'second'}"
