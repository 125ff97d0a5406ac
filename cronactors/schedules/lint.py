"""What looks like a mistake in a schedule that is allowed. Pure: the present is an argument."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.instants import EARLIEST, LATEST, Millis, to_millis
from cronactors.schedules.clock_changes import DAY, MAX_OVERLAP, ClockChange, clock_changes, shown_twice
from cronactors.schedules.cron import parse_cron, split_fields
from cronactors.schedules.cron_fields import HOUR
from cronactors.schedules.finding import Finding
from cronactors.schedules.fire_times import ONE_SHOT_GRACE, next_moment
from cronactors.schedules.lint_cron import Expression, lint_expression
from cronactors.schedules.local_times import LocalTimes
from cronactors.schedules.preview import wall_text
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule, check_is_schedule
from cronactors.schedules.timestamps import read_timestamp, utc_text
from cronactors.schedules.zones import check_zone

LOOK_AHEAD = 5 * 366 * DAY
"""How far ahead of a given present clock changes are looked at, in seconds: five years, in which each recurring one comes by."""

_NO_PRESENT = (to_millis(datetime(2026, 1, 1, tzinfo=UTC)), to_millis(datetime(2105, 1, 1, tzinfo=UTC)))
"""What is looked at when no present is given: changes that zones list one by one, and five years of those that recur for ever."""
_ONE_SECOND: Millis = 1000


def lint(schedule: Schedule, timezone: str | None = None, *, after: datetime | None = None) -> list[Finding]:
    """Look for what may not be meant in a schedule. It is allowed all the same: what is not cannot be made at all.

    The rules: ``never-fires``, ``rare-date``, ``missing-day``, ``nearest-weekday``, ``both-days``, ``star-step-day``,
    ``uneven-step``, ``many-runs``, ``seconds-first``, ``quartz-weekday``, ``skipped-time``, ``repeated-time``, ``short-interval``, ``in-the-past``.

    Args:
        schedule: When.
        timezone: IANA name of the zone in which the schedule is meant; None is UTC.
        after: The present, an aware datetime such as ``cronactors.now()``: clock changes of the five years from then on count,
            and a one-shot before it is past. None: the clock changes of the years 2026 to 2104, and no one-shot is past.

    Returns:
        The findings; empty if there is nothing to say.

    Raises:
        InvalidSchedule: An argument is not what it should be, or the zone is unknown.
    """
    check_is_schedule(schedule)
    zone = "UTC" if timezone is None else check_zone(timezone)
    present = None if after is None else checks.instant("after", after, InvalidSchedule)
    if isinstance(schedule, Interval):
        return list(_of_interval(schedule))
    if isinstance(schedule, OneShot):
        return list(_of_one_shot(schedule, zone, present))
    # A slip that is written twice is told once.
    return list(dict.fromkeys(_of_cron(schedule, zone, present)))


def _of_cron(schedule: Cron, zone: str, present: Millis | None) -> Iterator[Finding]:
    cron = Expression(split_fields(schedule.expr), parse_cron(schedule.expr))
    yield from lint_expression(cron)
    start, end = _NO_PRESENT
    if present is not None:
        start = min(max(present, EARLIEST), LATEST)
        end = min(start + LOOK_AHEAD * 1000, LATEST)
    if next_moment(schedule, after=start, zone=zone, anchor=start) is None:
        yield Finding("never-fires", f"expr {shorten(schedule.expr)} never fires in {zone} before the year 9998")
    else:
        yield from _of_clock_changes(cron, zone, start // 1000, end // 1000)


# Clock changes


def _of_clock_changes(cron: Expression, zone: str, start: int, end: int) -> Iterator[Finding]:
    """Hours that the clock skips or repeats; to a rhythm of all hours that happens as it is meant."""
    if not cron.times.keeps_local_time:
        return
    untold = {"skipped-time", "repeated-time"}
    for change in clock_changes(zone, start, end):
        rule = "skipped-time" if change.after > change.before else "repeated-time"
        text = _of_change(cron.times, change) if rule in untold else None
        if text is not None:
            yield Finding(rule, f"{cron.part(HOUR)} in {zone}: {text}")
            untold.remove(rule)
        if not untold:
            return


def _of_change(times: LocalTimes, change: ClockChange) -> str | None:
    """Say what a clock change does to the first time that it touches."""
    forward = change.after > change.before
    low, high = change.skipped if forward else change.repeated
    first = times.at_or_after(low)
    if first is None or first >= high:
        return None
    time = wall_text(first, first - MAX_OVERLAP)
    if not forward:
        return f"{time} is shown twice, it runs {'both times' if times.rhythm else 'the first time only'}"
    return f"{time} does not exist, it {'is skipped' if times.rhythm else f'runs at {wall_text(high, first)}'}"


# Intervals and one-shots


def _of_interval(schedule: Interval) -> Iterator[Finding]:
    """Milliseconds that may have been meant as seconds."""
    if schedule.every_ms < _ONE_SECOND:
        yield Finding("short-interval", f"every_ms {schedule.every_ms} is less than a second; it is counted in milliseconds")


def _of_one_shot(schedule: OneShot, zone: str, present: Millis | None) -> Iterator[Finding]:
    """Local times that do not exist or are shown twice, and what `add_job` refuses as too old."""
    stamp = read_timestamp(schedule.at)
    at, part = stamp.instant(zone), f"at {shorten(schedule.at)}"
    if stamp.is_skipped(zone):
        yield Finding("skipped-time", f"{part} does not exist in {zone}: the clock is set forward over it, it cannot be added")
    elif stamp.local and shown_twice(zone, at // 1000):
        yield Finding(
            "repeated-time", f"{part} is shown twice in {zone}: it runs the first time; an offset would say which is meant"
        )
    if at >= LATEST:
        yield Finding("never-fires", f"{part} never fires in {zone} before the year 9998")
    if present is not None and at < present - ONE_SHOT_GRACE:
        yield Finding("in-the-past", f"{part} is in the past, it was {utc_text(at)}: it is not run")
