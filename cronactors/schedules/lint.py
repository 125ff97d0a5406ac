"""Finds likely mistakes in valid schedules: `lint`, and the rules for clock changes, intervals and one-shots. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.instants import EARLIEST, LATEST, Millis, iso_utc, to_millis
from cronactors.schedules.clock_changes import DAY, ClockChange, clock_changes, shown_twice
from cronactors.schedules.cron import parse_cron, split_fields
from cronactors.schedules.cron_fields import HOUR
from cronactors.schedules.finding import Finding
from cronactors.schedules.fire_times import ONE_SHOT_GRACE, next_moment
from cronactors.schedules.lint_cron import Expression, lint_expression
from cronactors.schedules.local_times import LocalTimes
from cronactors.schedules.preview import local_text
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule, check_is_schedule
from cronactors.schedules.timestamps import read_timestamp
from cronactors.schedules.zones import check_zone

LINT_PERIOD = 5 * 366 * DAY
"""How far (s) after a given present we check clock changes: five years, in which each yearly change occurs several times."""

_DEFAULT_PERIOD = (to_millis(datetime(2026, 1, 1, tzinfo=UTC)), to_millis(datetime(2105, 1, 1, tzinfo=UTC)))
"""The period that we check if no present is given.

It holds the changes that zones list one by one (those of Morocco end in 2087), and some years of the changes that recur for ever.
"""
_ONE_SECOND: Millis = 1000


def lint(schedule: Schedule, timezone: str | None = None, *, after: datetime | None = None) -> list[Finding]:
    """Find likely mistakes in a schedule. All of them are allowed: a schedule that is not valid cannot be constructed.

    The rules: ``never-fires``, ``rare-date``, ``missing-day``, ``nearest-weekday``, ``both-days``, ``star-step-day``,
    ``uneven-step``, ``many-runs``, ``seconds-first``, ``quartz-weekday``, ``skipped-time``, ``repeated-time``,
    ``short-interval``, ``in-the-past``.

    Args:
        schedule: A `Cron`, `Interval` or `OneShot`.
        timezone: The IANA name of the zone in which local times are read; None for UTC.
        after: The present, an aware datetime such as ``cronactors.now()``. Clock changes in the five years from then on are
            reported, and a one-shot before it is in the past. None: clock changes of the years 2026 to 2104 are reported, and no
            one-shot is in the past.

    Returns:
        The findings; an empty list if there are none.

    Raises:
        InvalidSchedule: An argument has a wrong type or value, or no zone has the name.
    """
    check_is_schedule(schedule)
    zone = "UTC" if timezone is None else check_zone(timezone)
    present = None if after is None else checks.instant("after", after, InvalidSchedule)
    if isinstance(schedule, Interval):
        return list(_check_interval(schedule))
    if isinstance(schedule, OneShot):
        return list(_check_one_shot(schedule, zone, present))
    # `*/7,*/7` has the same finding twice; we report it once.
    return list(dict.fromkeys(_check_cron(schedule, zone, present)))


def _check_cron(schedule: Cron, zone: str, present: Millis | None) -> Iterator[Finding]:
    cron = Expression(split_fields(schedule.expr), parse_cron(schedule.expr))
    yield from lint_expression(cron)
    start, end = _DEFAULT_PERIOD
    if present is not None:
        start = min(max(present, EARLIEST), LATEST)
        end = min(start + LINT_PERIOD * 1000, LATEST)
    if next_moment(schedule, after=start, zone=zone, anchor=start) is None:
        yield Finding("never-fires", f"expr {shorten(schedule.expr)} never fires in {zone} before the year 9998")
    else:
        yield from _check_clock_changes(cron, zone, start // 1000, end // 1000)


# Clock changes


def _check_clock_changes(cron: Expression, zone: str, start: int, end: int) -> Iterator[Finding]:
    """Report the first time of a schedule that the clock skips, and the first that it shows twice.

    A rhythm of all hours is not reported: ``*/15 * * * *`` means every quarter of an hour, which is what happens.
    """
    if not cron.times.keeps_local_time:
        return
    unreported = {"skipped-time", "repeated-time"}
    for change in clock_changes(zone, start, end):
        rule = "skipped-time" if change.after > change.before else "repeated-time"
        text = _describe_change(cron.times, change) if rule in unreported else None
        if text is not None:
            yield Finding(rule, f"{cron.part(HOUR)} in {zone}: {text}")
            unreported.remove(rule)
        if not unreported:
            return


def _describe_change(times: LocalTimes, change: ClockChange) -> str | None:
    """Describe the effect of a clock change on the first time that it skips or repeats; None if it skips or repeats none."""
    forward = change.after > change.before
    low, high = change.skipped if forward else change.repeated
    first = times.at_or_after(low)
    if first is None or first >= high:
        return None
    time = local_text(first)
    if not forward:
        return f"{time} is shown twice, it runs {'both times' if times.rhythm else 'the first time only'}"
    return f"{time} does not exist, it {'is skipped' if times.rhythm else f'runs at {local_text(high, same_day_as=first)}'}"


# Intervals and one-shots


def _check_interval(schedule: Interval) -> Iterator[Finding]:
    """Report an interval that was perhaps written in seconds."""
    if schedule.every_ms < _ONE_SECOND:
        yield Finding("short-interval", f"every_ms {schedule.every_ms} is less than a second; it is counted in milliseconds")


def _check_one_shot(schedule: OneShot, zone: str, present: Millis | None) -> Iterator[Finding]:
    """Report a local time that the clock skips or shows twice, and a moment that `add_job` would refuse as past."""
    stamp = read_timestamp(schedule.at)
    at, part = stamp.instant(zone), f"at {shorten(schedule.at)}"
    if stamp.is_skipped(zone):
        yield Finding("skipped-time", f"{part} does not exist in {zone}: the clock is set forward over it, so it cannot be added")
    elif stamp.local and shown_twice(zone, at // 1000):
        yield Finding("repeated-time", f"{part} is shown twice in {zone}: it runs the first time; write an offset to choose one")
    if at >= LATEST:
        yield Finding("never-fires", f"{part} never fires in {zone} before the year 9998")
    if present is not None and at < present - ONE_SHOT_GRACE:
        yield Finding("in-the-past", f"{part} is in the past, it was {iso_utc(at, short=True)}: it is not run")
