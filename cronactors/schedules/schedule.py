"""Schedules: one-shot, interval, cron; when they fire, and how they are written down. Pure: never asks for the time."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import TypeAlias

import attrs

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.instants import EARLIEST, LATEST, Millis, from_millis
from cronactors.schedules.cron import check_text, parse_cron
from cronactors.schedules.fire_times import count_instants, latest_instant, next_instant
from cronactors.schedules.timestamps import read_timestamp, timestamp_text
from cronactors.schedules.zones import check_zone

MAX_INTERVAL: Millis = 36_525 * 86_400_000
"""Longest interval: 100 years, in milliseconds."""
ONE_SHOT_GRACE: Millis = 60_000
"""How far in the past a one-shot may lie when it is added and still be due at once, in milliseconds."""

_MAX_TEXT = 2_000


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def _checked_every(value: int) -> int:
    return checks.whole("every_ms", value, InvalidSchedule, least=1, most=MAX_INTERVAL)


def _checked_expr(value: str) -> str:
    text = check_text(value)
    parse_cron(text)
    return text


@attrs.frozen
class OneShot:
    """A single moment.

    Args:
        at: ISO 8601 as RFC 3339 has it, such as ``"2026-03-29T09:00:00+02:00"`` or ``"2026-03-29 09:00"``, or a datetime. An
            offset in it (``Z`` too) wins; without one it is local time in the job's zone: of a time that the clock shows twice
            the first showing, while one that it skips is refused when the job is added. Kept in whole milliseconds.

    Raises:
        InvalidSchedule: It cannot be read, or is no time of the years 1970 to 9997.
    """

    at: str = attrs.field(converter=timestamp_text)


@attrs.frozen
class Interval:
    """Moments at a fixed distance, anchored: k * ``every_ms`` after the job was added, without drift, whatever a run takes.

    Args:
        every_ms: The distance in milliseconds, 1 to 100 years.

    Raises:
        InvalidSchedule: It is not a whole number, or out of range.
    """

    every_ms: int = attrs.field(converter=_checked_every)

    @classmethod
    def every(cls, *, hours: float = 0, minutes: float = 0, seconds: float = 0, ms: float = 0) -> Interval:
        """Make an interval of parts, which are added up.

        Raises:
            InvalidSchedule: A part is not a number of 0 or more, or the sum is not whole milliseconds from 1 to 100 years.
        """
        total = 0.0
        for name, part, unit in (
            ("hours", hours, 3_600_000),
            ("minutes", minutes, 60_000),
            ("seconds", seconds, 1_000),
            ("ms", ms, 1),
        ):
            total += checks.number(name, part, InvalidSchedule, least=0, most=MAX_INTERVAL) * unit
        # 0.07 s are 70.00000000000001 ms in binary, and meant as 70.
        if not math.isclose(total, round(total), rel_tol=0, abs_tol=1e-5):
            raise InvalidSchedule(f"every_ms must be a whole number of milliseconds, not {shorten(total)}")
        return cls(round(total))


@attrs.frozen
class Cron:
    """A cron expression, read in the job's zone.

    Write a time of day (``30 2 * * *``) and it runs exactly once every day: at the first moment after the jump if the clock skips
    it, the first time only if the clock shows it twice. Write a rhythm (second, minute or hour begins with ``*``) and it follows
    the clock on the wall: skipped times do not happen, a repeated hour is run again. (Debian cron(8).)

    Args:
        expr: Five fields as in POSIX crontab, or six with SECONDS FIRST: ``"0 0 9 * * *"`` is nine o'clock. Weekday 0 or 7 is
            Sunday; names; ``@daily`` and its like; ``L``, ``15W``, ``L5``, ``5#2``. Day of month and day of week both restricted:
            either matches; only a plain ``*`` or ``?`` is unrestricted.

    Raises:
        InvalidSchedule: It breaks the grammar or names a date that does not exist.
    """

    expr: str = attrs.field(converter=_checked_expr)


Schedule: TypeAlias = OneShot | Interval | Cron
"""When a job runs."""


def next_run(
    schedule: Schedule, *, after: datetime, timezone: str | None = None, anchor: datetime | None = None
) -> datetime | None:
    """Tell when a schedule fires next.

    Args:
        schedule: When.
        after: An aware datetime; the answer is later.
        timezone: IANA name of the zone in which the schedule is meant; None is UTC.
        anchor: Where an interval began; None is ``after``.

    Returns:
        An aware UTC datetime of whole milliseconds, or None if it never fires again before the year 9998.

    Raises:
        InvalidSchedule: An argument is not what it should be, the zone is unknown, or a one-shot's local time is skipped by the
            clock in that zone.
    """
    start, zone, base = _checked_question(schedule, after, timezone, anchor)
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
    """Give the times at which a schedule fires, one after the other, later than ``after`` and earlier than ``before``.

    Args:
        schedule: When.
        after: An aware datetime.
        before: An aware datetime; None goes on for as long as the schedule does.
        timezone: IANA name of the zone in which the schedule is meant; None is UTC.
        anchor: Where an interval began; None is ``after``.

    Returns:
        Aware UTC datetimes of whole milliseconds, strictly increasing.

    Raises:
        InvalidSchedule: As `next_run`; at once, not at the first step.
    """
    start, zone, base = _checked_question(schedule, after, timezone, anchor)
    end = LATEST
    if before is not None:
        end = checks.instant("before", before, InvalidSchedule)
        # Cut to milliseconds, an end in between would exclude the millisecond that lies before it.
        end += before.microsecond % 1000 > 0
    return _walk(schedule, start, end, zone, base)


def next_moment(schedule: Schedule, *, after: Millis, zone: str, anchor: Millis) -> Millis | None:
    """Find the first moment of a schedule strictly later than ``after``; None if there is none before 9998.

    A stored one-shot whose local time has come to be skipped, because the zone's rules changed, fires right after the jump.

    Args:
        schedule: When.
        after: An instant.
        zone: A checked IANA name.
        anchor: Where an interval began; others ignore it.
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


# Many jobs share an expression and a zone, and come due at the same instant: what follows is computed once for all of them.


@lru_cache(maxsize=2048)
def _next_of_cron(expr: str, zone: str, second: int) -> Millis | None:
    found = next_instant(parse_cron(expr), zone, second)
    return None if found is None else found * 1000


@lru_cache(maxsize=2048)
def _latest_of_cron(expr: str, zone: str, second: int) -> Millis | None:
    found = latest_instant(parse_cron(expr), zone, second)
    return None if found is None else found * 1000


def latest_moment(schedule: Schedule, *, until: Millis, zone: str, anchor: Millis) -> Millis | None:
    """Find the last moment of a schedule up to ``until``, itself included; None if there is none since 1970.

    It is the last that `next_moment`, asked again and again, would have given by then.

    Args:
        schedule: When.
        until: An instant.
        zone: A checked IANA name.
        anchor: Where an interval began: there is none before or at it. Others ignore it.
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
    """Count the moments of a schedule in ``first <= moment <= until``, to ``cap``; without stepping through them.

    Args:
        schedule: When.
        first: An instant, itself a moment of the schedule.
        until: An instant.
        zone: A checked IANA name.
        anchor: Where an interval began; others ignore it.
        cap: Where counting stops.
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
    """Find the first moment of a schedule that is added at ``now``, which is then its anchor.

    A one-shot up to 60 s in the past is due at once: the answer is its own moment.

    Args:
        schedule: When.
        now: An instant.
        zone: A checked IANA name.

    Raises:
        InvalidSchedule: It never fires, or it is a one-shot that is older or whose local time the clock skips in that zone.
    """
    if isinstance(schedule, OneShot):
        _check_exists(schedule, zone)
        at = _at(schedule, zone)
        if at < now - ONE_SHOT_GRACE:
            raise InvalidSchedule(f"at {shorten(schedule.at)} is in the past: it was {_show(at)}, now it is {_show(now)} UTC")
        if at < LATEST:
            return at
    found = next_moment(schedule, after=now, zone=zone, anchor=now)
    if found is None:
        ((name, value),) = attrs.asdict(schedule).items()
        raise InvalidSchedule(f"{name} {shorten(value)} never fires in {zone} before the year 9998")
    return found


def schedule_to_dict(schedule: Schedule) -> dict[str, str | int]:
    """Write a schedule as plain values, such as ``{"kind": "cron", "expr": "0 9 * * *"}``.

    Raises:
        InvalidSchedule: It is not a schedule.
    """
    check_is_schedule(schedule)
    if isinstance(schedule, Cron):
        return {"kind": "cron", "expr": schedule.expr}
    if isinstance(schedule, Interval):
        return {"kind": "interval", "every_ms": schedule.every_ms}
    return {"kind": "one_shot", "at": schedule.at}


def schedule_from_dict(mapping: Mapping[str, object]) -> Schedule:
    """Read what `schedule_to_dict` wrote.

    Raises:
        InvalidSchedule: A key is missing, unknown or has a wrong value; the message names it.
    """
    if not isinstance(mapping, Mapping):
        raise InvalidSchedule(f"schedule must be a mapping, not {shorten(mapping)}")
    kind = mapping.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InvalidSchedule(f"kind must be one of {', '.join(_KINDS)}, not {shorten(kind)}")
    key, make = _KINDS[kind]
    for other in mapping:
        if other not in ("kind", key):
            near = difflib.get_close_matches(str(other)[:_MAX_TEXT], (key,), cutoff=0.5)
            hint = f"; did you mean {key}?" if near else ""
            raise InvalidSchedule(f"{shorten(other)} is not a key of a schedule of kind {kind}{hint}")
    if key not in mapping:
        raise InvalidSchedule(f"{key} is missing in a schedule of kind {kind}")
    return make(mapping[key])


@lru_cache(maxsize=256)
def schedule_to_json(schedule: Schedule) -> str:
    """Write a schedule as compact, stable JSON text: what the database stores."""
    return _ENCODER.encode(schedule_to_dict(schedule))


def schedule_from_json(text: str) -> Schedule:
    """Read what `schedule_to_json` wrote; the latest few thousand texts are remembered.

    Raises:
        InvalidSchedule: It is not JSON, or not a schedule.
    """
    return _from_json(checks.text("schedule", text, InvalidSchedule, limit=_MAX_TEXT))


@lru_cache(maxsize=4096)
def _from_json(text: str) -> Schedule:
    try:
        mapping = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidSchedule(f"schedule is not JSON: {shorten(text)}") from None
    return schedule_from_dict(mapping)


# The values come from outside; each class checks its own.
_KINDS: dict[str, tuple[str, Callable[[object], Schedule]]] = {
    "cron": ("expr", lambda value: Cron(value)),  # type: ignore[arg-type]
    "interval": ("every_ms", lambda value: Interval(value)),  # type: ignore[arg-type]
    "one_shot": ("at", lambda value: OneShot(_only_text("at", value))),
}


def _only_text(field: str, value: object) -> str:
    return checks.text(field, value, InvalidSchedule, limit=_MAX_TEXT)


def _walk(schedule: Schedule, after: Millis, before: Millis, zone: str, anchor: Millis) -> Iterator[datetime]:
    found = next_moment(schedule, after=after, zone=zone, anchor=anchor)
    while found is not None and found < before:
        yield from_millis(found)
        found = next_moment(schedule, after=found, zone=zone, anchor=anchor)


def _checked_question(
    schedule: Schedule, after: datetime, timezone: str | None, anchor: datetime | None
) -> tuple[Millis, str, Millis]:
    """Check the arguments of the public questions; give after, zone, anchor."""
    check_is_schedule(schedule)
    zone = "UTC" if timezone is None else check_zone(timezone, error=InvalidSchedule)
    start = checks.instant("after", after, InvalidSchedule)
    if isinstance(schedule, OneShot):
        _check_exists(schedule, zone)
    return start, zone, start if anchor is None else checks.instant("anchor", anchor, InvalidSchedule)


def check_is_schedule(schedule: Schedule) -> Schedule:
    """Refuse what is no schedule."""
    if not isinstance(schedule, OneShot | Interval | Cron):
        raise InvalidSchedule(f"schedule must be OneShot, Interval or Cron, not {shorten(schedule)}")
    return schedule


def _at(schedule: OneShot, zone: str) -> Millis:
    return read_timestamp(schedule.at).instant(zone)


def _check_exists(schedule: OneShot, zone: str) -> None:
    if read_timestamp(schedule.at).is_skipped(zone):
        raise InvalidSchedule(f"at {shorten(schedule.at)} does not exist in {zone}: the clock is set forward over it")


def _show(instant: Millis) -> str:
    return from_millis(instant).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
