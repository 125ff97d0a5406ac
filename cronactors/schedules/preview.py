"""The next moments of a schedule as the clock on the wall shows them, with a note where a clock change has a hand in one. Pure."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import attrs

from cronactors import checks
from cronactors.errors import InvalidSchedule
from cronactors.instants import EARLIEST, from_millis, to_millis
from cronactors.schedules.clock_changes import clock_changes, segment_at, shown_twice
from cronactors.schedules.cron import parse_cron
from cronactors.schedules.fire_times import fire_times
from cronactors.schedules.local_times import LocalTimes
from cronactors.schedules.schedule import Cron, OneShot, Schedule
from cronactors.schedules.timestamps import read_timestamp
from cronactors.schedules.zones import load_zone

MOST_PREVIEWS = 10_000
"""Most moments of one preview."""


@attrs.frozen
class Preview:
    """One moment of a schedule.

    Args:
        at: The instant, an aware UTC datetime of whole milliseconds.
        local: The same instant in the zone of the schedule.
        note: What a clock change does to it, such as ``"02:30 does not exist: runs at 03:00"``; None if none has a hand in it.
    """

    at: datetime
    local: datetime
    note: str | None


def preview(
    schedule: Schedule, *, after: datetime, timezone: str | None = None, anchor: datetime | None = None, count: int = 5
) -> list[Preview]:
    """Give the next moments of a schedule, and what clock changes do to them.

    Noted are: a time of day that the clock skips, at the moment after the jump when it runs; times of a rhythm that were skipped,
    at the first moment after them; every moment whose local time is shown twice. The rules are those of Debian's cron(8), see
    `Cron`. An interval does not look at the wall and has no notes, nor has a one-shot with an offset.

    Args:
        schedule: When.
        after: An aware datetime; the moments are later.
        timezone: IANA name of the zone in which the schedule is meant; None is UTC.
        anchor: Where an interval began; None is ``after``.
        count: How many moments, 0 to 10,000.

    Returns:
        The moments in order; fewer than ``count`` if the schedule ends before.

    Raises:
        InvalidSchedule: As `next_run`; or ``count`` is not a whole number, or out of range.
    """
    checks.whole("count", count, InvalidSchedule, least=0, most=MOST_PREVIEWS)
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


def wall_text(local: int, beside: int) -> str:
    """Write a local time, with its date if that is another than the date of the local time ``beside``. Both in local seconds."""
    wall = from_millis(local * 1000)  # a clock without a zone counts as UTC does
    text = f"{wall:%H:%M:%S}" if wall.second else f"{wall:%H:%M}"
    return text if wall.date() == from_millis(beside * 1000).date() else f"{wall.date()} {text}"


def _note(schedule: Schedule, zone: str, seen: int, instant: int) -> str | None:
    """Say what a clock change does to the moment at ``instant``, when all up to ``seen`` has been told."""
    if isinstance(schedule, OneShot):
        return _of_repeat(zone, instant, rhythm=False) if read_timestamp(schedule.at).local else None
    if not isinstance(schedule, Cron):
        return None
    times = parse_cron(schedule.expr)
    skip = _of_skipped_rhythm(times, zone, seen, instant) if times.rhythm else _of_skipped_time(times, zone, instant)
    return skip or _of_repeat(zone, instant, rhythm=times.rhythm)


def _of_skipped_time(times: LocalTimes, zone: str, instant: int) -> str | None:
    """A time of day: the moment after a jump stands for all that was jumped over, and for its own time if that matches."""
    for change in clock_changes(zone, instant - 1, instant + 1):
        low, high = change.skipped
        first, last = times.at_or_after(low), times.at_or_before(high - 1)
        if first is None or last is None or first >= high:
            return None
        own = times.at_or_after(high) == high
        runs_at = f"{'together with' if own else 'at'} {wall_text(high, first)}"
        if first == last:
            return f"{wall_text(first, high)} does not exist: runs {runs_at}"
        count = times.count(low, high, high - low)
        return f"{wall_text(first, high)} to {wall_text(last, first)} ({count:,} times) do not exist: run once {runs_at}"
    return None


def _of_skipped_rhythm(times: LocalTimes, zone: str, seen: int, instant: int) -> str | None:
    """A rhythm: what the clock jumped over since the moment before did not happen; of several jumps the latest is told."""
    for change in reversed(list(clock_changes(zone, seen, instant + 1))):
        low, high = change.skipped
        if times.count(low, high, 1):
            here = instant + segment_at(zone, instant).offset
            return f"{wall_text(low, here)} to {wall_text(high, low)} does not exist: skipped"
    return None


def _of_repeat(zone: str, instant: int, *, rhythm: bool) -> str | None:
    """Say which of two showings of a local time this is, if there are two."""
    change = shown_twice(zone, instant)
    if change is None:
        return None
    local = instant + segment_at(zone, instant).offset
    twice = f"{wall_text(local, local)} is shown twice"
    if not rhythm:
        return f"{twice}: runs the first time only"
    return f"{twice}: runs both times, this is the {'first' if instant < change.at else 'second'}"
