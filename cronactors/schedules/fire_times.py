"""When a schedule of any kind fires: the next moment, the latest one, and the number of moments. Pure.

The public functions take and return datetimes and check their arguments. The others work on instants in milliseconds; the policy
and the ledger call them with values that have been checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

import attrs

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.instants import EARLIEST, LATEST, Millis, from_millis, iso_utc
from cronactors.schedules.cron import parse_cron
from cronactors.schedules.cron_in_zone import count_instants, latest_instant, next_instant
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule, check_is_schedule
from cronactors.schedules.timestamps import read_timestamp
from cronactors.schedules.zones import check_zone

ONE_SHOT_GRACE: Millis = 60_000
"""How far (ms) in the past a one-shot may be when it is added; it is then due at once."""


def next_run(
    schedule: Schedule, *, after: datetime, timezone: str | None = None, anchor: datetime | None = None
) -> datetime | None:
    """Find the next time at which a schedule fires.

    Args:
        schedule: A `Cron`, `Interval` or `OneShot`.
        after: An aware datetime; the result is later.
        timezone: The IANA name of the zone in which local times are read; None for UTC.
        anchor: When an interval began; None for ``after``. Other schedules ignore it.

    Returns:
        An aware UTC datetime of whole milliseconds, or None if the schedule does not fire again before the year 9998.

    Raises:
        InvalidSchedule: An argument has a wrong type or value, no zone has the name, or the clock in that zone skips the local
            time of a one-shot.
    """
    start, zone, base = _check_arguments(schedule, after, timezone, anchor)
    found = next_moment(schedule, after=start, zone=zone, anchor=base)
    return None if found is None else from_millis(found)


def fire_times(
    schedule: Schedule,
    *,
    after: datetime,
    before: datetime | None = None,
    timezone: str | None = None,
    anchor: datetime | None = None,
) -> Iterator[datetime]:
    """Iterate over the times at which a schedule fires, later than ``after`` and earlier than ``before``.

    Args:
        schedule: A `Cron`, `Interval` or `OneShot`.
        after: An aware datetime.
        before: An aware datetime; None for no end.
        timezone: The IANA name of the zone in which local times are read; None for UTC.
        anchor: When an interval began; None for ``after``. Other schedules ignore it.

    Returns:
        Aware UTC datetimes of whole milliseconds, strictly increasing.

    Raises:
        InvalidSchedule: As `next_run`. It is raised by the call itself, not by the first step of the iteration.
    """
    start, zone, base = _check_arguments(schedule, after, timezone, anchor)
    end = LATEST
    if before is not None:
        end = checks.instant("before", before, InvalidSchedule)
        # The end was cut to milliseconds. If it lies between two of them, the earlier one is still before it.
        end += before.microsecond % 1000 > 0
    return _iterate(schedule, start, end, zone, base)


def next_moment(schedule: Schedule, *, after: Millis, zone: str, anchor: Millis) -> Millis | None:
    """Find the first moment of a schedule later than ``after``; None if there is none before the year 9998.

    A one-shot can be stored before the rules of its zone change, and its local time can be skipped by the new rules. It then
    fires right after the jump.

    Args:
        schedule: A `Cron`, `Interval` or `OneShot`.
        after: An instant.
        zone: A checked IANA name.
        anchor: When an interval began; others ignore it.
    """
    after = max(after, EARLIEST - 1)
    if after >= LATEST:
        return None
    found: Millis | None
    if isinstance(schedule, Cron):
        found = _next_of_cron(schedule.expr, zone, after // 1000)
    elif isinstance(schedule, Interval):
        found = anchor + max(1, (after - anchor) // schedule.every_ms + 1) * schedule.every_ms
    else:
        at = _at(schedule, zone)
        found = at if at > after else None
    return found if found is not None and found < LATEST else None


# Many jobs share an expression and a zone and come due at the same instant. The cache lets us compute their next moment once.


@lru_cache(maxsize=2048)
def _next_of_cron(expr: str, zone: str, second: int) -> Millis | None:
    found = next_instant(parse_cron(expr), zone, second)
    return None if found is None else found * 1000


@lru_cache(maxsize=2048)
def _latest_of_cron(expr: str, zone: str, second: int) -> Millis | None:
    found = latest_instant(parse_cron(expr), zone, second)
    return None if found is None else found * 1000


def latest_moment(schedule: Schedule, *, until: Millis, zone: str, anchor: Millis) -> Millis | None:
    """Find the last moment of a schedule up to ``until``, inclusive; None if there is none since 1970.

    It agrees with `next_moment`: repeated calls of that return this moment last before they pass ``until``.

    Args:
        schedule: A `Cron`, `Interval` or `OneShot`.
        until: An instant.
        zone: A checked IANA name.
        anchor: When an interval began; its first moment is later. Others ignore it.
    """
    until = min(until, LATEST - 1)
    if until < EARLIEST:
        return None
    found: Millis | None
    if isinstance(schedule, Cron):
        found = _latest_of_cron(schedule.expr, zone, until // 1000)
    elif isinstance(schedule, Interval):
        steps = (until - anchor) // schedule.every_ms
        found = anchor + steps * schedule.every_ms if steps >= 1 else None
    else:
        at = _at(schedule, zone)
        found = at if at <= until else None
    return found if found is not None and found >= EARLIEST else None


def count_moments(schedule: Schedule, *, first: Millis, until: Millis, zone: str, anchor: Millis, cap: int = 1000) -> int:
    """Count the moments of a schedule in ``first <= moment <= until``, up to ``cap``, without stepping through them.

    Args:
        schedule: A `Cron`, `Interval` or `OneShot`.
        first: An instant that is a moment of the schedule.
        until: An instant.
        zone: A checked IANA name.
        anchor: When an interval began; others ignore it.
        cap: The highest count that is returned.
    """
    first, until = max(first, EARLIEST), min(until, LATEST - 1)
    if until < first:
        return 0
    if isinstance(schedule, Cron):
        return count_instants(parse_cron(schedule.expr), zone, -(-first // 1000), until // 1000, cap)
    if isinstance(schedule, Interval):
        before = max(0, -(-(first - anchor) // schedule.every_ms) - 1)
        return max(0, min(cap, (until - anchor) // schedule.every_ms - before))
    return int(first <= _at(schedule, zone) <= until)


def first_moment(schedule: Schedule, *, now: Millis, zone: str) -> Millis:
    """Find the first moment of a schedule that is added at ``now``. For an interval ``now`` is the anchor.

    A one-shot that is up to 60 s in the past keeps its moment and so is due at once.

    Args:
        schedule: A `Cron`, `Interval` or `OneShot`.
        now: An instant.
        zone: A checked IANA name.

    Raises:
        InvalidSchedule: The schedule never fires; or it is a one-shot that is further in the past, or whose local time the clock
            in that zone skips.
    """
    if isinstance(schedule, OneShot):
        _check_exists(schedule, zone)
        at = _at(schedule, zone)
        if at < now - ONE_SHOT_GRACE:
            raise InvalidSchedule(
                f"at {shorten(schedule.at)} is in the past: it was {iso_utc(at, short=True)}, now it is {iso_utc(now, short=True)}"
            )
        if at < LATEST:
            return at
    found = next_moment(schedule, after=now, zone=zone, anchor=now)
    if found is None:
        ((name, value),) = attrs.asdict(schedule).items()
        raise InvalidSchedule(f"{name} {shorten(value)} never fires in {zone} before the year 9998")
    return found


def _iterate(schedule: Schedule, after: Millis, before: Millis, zone: str, anchor: Millis) -> Iterator[datetime]:
    found = next_moment(schedule, after=after, zone=zone, anchor=anchor)
    while found is not None and found < before:
        yield from_millis(found)
        found = next_moment(schedule, after=found, zone=zone, anchor=anchor)


def _check_arguments(
    schedule: Schedule, after: datetime, timezone: str | None, anchor: datetime | None
) -> tuple[Millis, str, Millis]:
    """Check the arguments that the public functions share, and return the start, the zone and the anchor."""
    check_is_schedule(schedule)
    zone = "UTC" if timezone is None else check_zone(timezone, error=InvalidSchedule)
    start = checks.instant("after", after, InvalidSchedule)
    if isinstance(schedule, OneShot):
        _check_exists(schedule, zone)
    return start, zone, start if anchor is None else checks.instant("anchor", anchor, InvalidSchedule)


def _at(schedule: OneShot, zone: str) -> Millis:
    return read_timestamp(schedule.at).instant(zone)


def _check_exists(schedule: OneShot, zone: str) -> None:
    if read_timestamp(schedule.at).is_skipped(zone):
        raise InvalidSchedule(f"at {shorten(schedule.at)} does not exist in {zone}: the clock is set forward over it")
