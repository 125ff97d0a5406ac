"""Times and durations as people type them, such as ``2026-03-28 14:30``, ``2h``, ``in 10m`` and ``yesterday``. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from cronactors.errors import InvalidSchedule, shorten
from cronactors.instants import EARLIEST, LATEST, Millis, from_millis, to_millis
from cronactors.schedules.timestamps import read_timestamp
from cronactors.schedules.zones import is_zone, load_zone

_UNITS: Final[dict[str, Millis]] = {
    **dict.fromkeys(("ms",), 1),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1_000),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600_000),
    **dict.fromkeys(("d", "day", "days"), 86_400_000),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86_400_000),
}
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
_LONGEST: Final[Millis] = 36_600 * 86_400_000
"""Longest duration: a hundred years."""

_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*([a-z]+)\s*", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_DAY_AND_TIME = re.compile(r"(yesterday|today|tomorrow)(?:\s+(\d{1,2}:\d\d(?::\d\d)?))?", re.ASCII)
_CLOCK = re.compile(r"\d{1,2}:\d\d(?::\d\d)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Read a length of time: numbers with units, such as ``90s``, ``1h30m``, ``1.5h`` or ``2 days``, in whole milliseconds.

    The units are ms, s, m (minutes), h, d (24 hours) and w, and their English words.

    Raises:
        ValueError: It is none, or longer than a hundred years. The message shows how to write one.
    """
    written = text.strip().lower()
    if _DURATION.fullmatch(written) is None:
        raise ValueError(f"{shorten(text)} is not a length of time, such as 90s, 10m, 2h, 1h30m or 3d")
    length = 0.0
    for number, unit in _PART.findall(written):
        if unit not in _UNITS:
            raise ValueError(f"{shorten(text)} has the unknown unit {shorten(unit)}: use s, m, h, d or w")
        length += float(number) * _UNITS[unit]
    if length > _LONGEST:
        raise ValueError(f"{shorten(text)} is longer than a hundred years")
    return timedelta(milliseconds=round(length))


def parse_time(text: str, *, zone: str, now: datetime) -> datetime:
    """Read a point in time.

    ============================================  =========================================================
    ``2026-03-28``                                 the beginning of that day
    ``2026-03-28 14:30``, ``2026-03-28T14:30Z``    a time of RFC 3339; seconds and offset may be left out
    ``2h``, ``2h ago``                             so long before now
    ``in 2h``                                      so long after now
    ``now``                                        now
    ``yesterday``, ``today``, ``tomorrow``         the beginning of that day
    ``today 09:00``                                a time on that day
    ============================================  =========================================================

    A time that the clock skips is the moment after the jump; of one that it shows twice it is the first. A time before 1970 is the
    beginning of 1970.

    Args:
        text: The text.
        zone: The zone of days, and of times without an offset: a checked IANA name.
        now: The present time, aware.

    Returns:
        The time, UTC.

    Raises:
        ValueError: It is none of these. The message shows how to write one.
    """
    written = text.strip().lower()
    if written == "now":
        return _within(to_millis(now))
    if written.startswith("in "):
        return _within(to_millis(now) + _millis(written.removeprefix("in ")))
    before = written.removesuffix(" ago")
    if _DURATION.fullmatch(before.strip()):
        return _within(to_millis(now) - _millis(before))
    try:
        return _within(read_timestamp(_timestamp(written, zone, now)).instant(zone))
    except (InvalidSchedule, OverflowError):
        raise ValueError(
            f"{shorten(text)} is not a time, such as 2026-03-28, 2026-03-28T14:30, 2h, 3d, yesterday or today 09:00"
        ) from None


def parse_coming_time(text: str, *, zone: str, now: datetime) -> datetime:
    """Read a point in time that is to come, as `parse_time` does, except that a length of time is after now, with or without ``in``.

    A time of day alone, such as ``09:00``, is the next one.

    Raises:
        ValueError: It is none. The message shows how to write one.
    """
    written = text.strip().lower()
    if _CLOCK.fullmatch(written):
        today = parse_time(f"today {written}", zone=zone, now=now)
        return today if today > now else parse_time(f"tomorrow {written}", zone=zone, now=now)
    try:
        return parse_time(f"in {written}" if _DURATION.fullmatch(written) else written, zone=zone, now=now)
    except ValueError:
        raise ValueError(f"{shorten(text)} is not a time, such as 2h, 09:00, tomorrow 09:00 or 2026-12-24T18:00") from None


def write_out_day(text: str, *, zone: str, now: datetime) -> str:
    """Write ``tomorrow 09:00`` or ``today 09:00`` as a date and time without an offset; any other text stays as it is."""
    written = text.strip().lower()
    match = _DAY_AND_TIME.fullmatch(written)
    return text if match is None or match[2] is None or not is_zone(zone) else _timestamp(written, zone, now)


def _timestamp(written: str, zone: str, now: datetime) -> str:
    """Write a day and a time on it as RFC 3339 does; any other text stays as it is."""
    if _DATE.fullmatch(written):
        return f"{written}T00:00"
    match = _DAY_AND_TIME.fullmatch(written)
    if match is None:
        return written
    day = now.astimezone(load_zone(zone)).date() + timedelta(days=_DAYS[match[1]])
    hour, _, rest = (match[2] or "00:00").partition(":")
    return f"{day.isoformat()}T{hour:0>2}:{rest}"


def _millis(duration: str) -> Millis:
    return parse_duration(duration) // timedelta(milliseconds=1)


def _within(instant: Millis) -> datetime:
    return from_millis(min(max(instant, EARLIEST), LATEST - 1))
