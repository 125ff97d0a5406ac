"""Time zones: which names are good, and how local times become instants across clock changes. Pure.

An instant here is whole seconds since 1970 UTC; a local time is the same number read off the wall: the seconds that a clock
without a zone would count from 1970-01-01 00:00. A local time may be skipped, or be shown twice (PEP 495).

Clock changes are found with `zoneinfo` alone, by looking at the offset every three days and halving where it differs. No zone of
the IANA database has changed twice within less than six days since 1970; a test compares them all.
"""

from __future__ import annotations

import difflib
import zoneinfo
from bisect import bisect_right
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

from cronactors.checks import text
from cronactors.errors import CronError, InvalidSchedule, shorten
from cronactors.schedules import zone_advice

DAY = 86_400
"""Seconds of a day; every zone's offset from UTC is smaller (Python's own rule for ``tzinfo.utcoffset``)."""
MAX_OVERLAP = 2 * DAY
"""Seconds after a clock change when no local time from before it can be shown again."""

_MAX_NAME = 64
_BLOCK_BITS = 24
"""Clock changes are kept in blocks of 2**24 seconds, about half a year."""
_STRIDE = 1 << 18
_NOT_ZONES = frozenset({"localtime", "posixrules", "Factory"})
"""Files that a system keeps beside the zones: the machine's own zone, or none at all."""


class Segment(NamedTuple):
    """A stretch of time with one offset: ``start <= instant < end``, and local time is instant + offset. Seconds.

    Neighbours may have the same offset.
    """

    start: int
    end: int
    offset: int


def check_zone(name: object, *, field: str = "timezone", error: type[CronError] = InvalidSchedule) -> str:
    """Check the name of a time zone: a key of the IANA database, in its exact spelling.

    Args:
        name: Such as ``"Europe/Rome"`` or ``"UTC"``; the machine's own zone has no name.
        field: What the message calls it.
        error: The class to raise.

    Returns:
        The same name.

    Raises:
        CronError: As the class in ``error``: it is not text, or no zone has that name. The message names near ones; of an offset
            or an abbreviation it names places that use it.
    """
    checked = text(field, name, error, limit=_MAX_NAME)
    if not is_zone(checked):
        advice = zone_advice.advise(checked, is_zone, lambda zone, instant: _offset(rules(zone), instant))
        near = _near(checked) if advice is None else []
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; {advice.why}" if advice is not None else ""
        raise error(f"{field} {shorten(checked)} is not the name of an IANA time zone{hint}")
    return checked


@lru_cache(maxsize=1024)
def is_zone(name: str) -> bool:
    """Whether a name is that of a zone; reads the lists of zones once."""
    # Membership in a list, not success in opening a file: that would depend on the file system's idea of case and of paths.
    if name not in _packaged_names() and name not in _system_names():
        return False
    try:
        rules(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


@lru_cache(maxsize=1024)
def rules(zone: str) -> tzinfo:
    """The rules of a zone: those of the package tzdata, the same on every machine; the system's for a zone that it does not have."""
    if zone not in _packaged_names():
        return zoneinfo.ZoneInfo(zone)
    with resources.files("tzdata").joinpath("zoneinfo", *zone.split("/")).open("rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, key=zone)


@lru_cache(maxsize=1)
def _packaged_names() -> frozenset[str]:
    try:
        listed = resources.files("tzdata").joinpath("zones").read_text(encoding="ascii")
    except (ModuleNotFoundError, OSError):
        return frozenset()
    return frozenset(listed.split()) - _NOT_ZONES


@lru_cache(maxsize=1)
def _system_names() -> frozenset[str]:
    """List the system's zones; opens some 600 files, so only asked about names that tzdata does not have."""
    return frozenset(zoneinfo.available_timezones()) - _NOT_ZONES


def _near(name: str) -> list[str]:
    """Find up to three zones that may have been meant: another case, the city alone, a slip."""
    wanted = name.casefold().replace(" ", "_")
    names = sorted(_packaged_names() or _system_names())
    exact = [zone for zone in names if wanted in (zone.casefold(), zone.casefold().rsplit("/", 1)[-1])]
    if exact:
        return exact[:3]
    folded = {zone.casefold(): zone for zone in names}
    cities = {zone.casefold().rsplit("/", 1)[-1]: zone for zone in names}
    # A zone without a place is not a slip away: CEST is not EST.
    close = [zone for zone in difflib.get_close_matches(wanted, folded, n=3, cutoff=0.75) if "/" in zone]
    return [folded[zone] for zone in close] or [
        cities[city] for city in difflib.get_close_matches(wanted, cities, n=3, cutoff=0.75)
    ]


def segment_at(zone: str, instant: int) -> Segment:
    """Find the stretch of one offset in which an instant lies; between 1969 and mid-9998.

    Args:
        zone: A checked IANA name.
        instant: Seconds since 1970 UTC.
    """
    starts, segments = _block(zone, instant >> _BLOCK_BITS)
    return segments[bisect_right(starts, instant) - 1]


def latest_local_shown(zone: str, instant: int) -> int:
    """Tell the latest local time that the wall has shown up to an instant, itself included.

    That is the local time at the instant, except while the clock, set back, catches up.

    Args:
        zone: A checked IANA name.
        instant: Seconds since 1970 UTC.

    Returns:
        Local seconds.
    """
    segment = segment_at(zone, instant)
    furthest = instant + segment.offset
    while segment.start > instant - MAX_OVERLAP:
        before = segment_at(zone, segment.start - 1)
        furthest = max(furthest, segment.start - 1 + before.offset)
        segment = before
    return furthest


def instant_reaching(zone: str, local: int) -> int:
    """Find the first instant at which the wall shows a local time or a later one.

    For a time that is shown twice this is its first showing; for one that is skipped, the first moment after the jump (Debian
    cron(8) runs a skipped job then). A later local time is never reached earlier.

    Args:
        zone: A checked IANA name.
        local: Local seconds.

    Returns:
        Seconds since 1970 UTC.
    """
    segment = segment_at(zone, local - DAY)
    while True:
        found = max(segment.start, local - segment.offset)
        if found < segment.end:
            return found
        segment = segment_at(zone, segment.end)


def is_skipped(zone: str, local: int) -> bool:
    """Tell whether the clock in a zone jumps over a local time (in seconds)."""
    found = instant_reaching(zone, local)
    return found + segment_at(zone, found).offset != local


@lru_cache(maxsize=16384)
def _block(zone: str, index: int) -> tuple[tuple[int, ...], tuple[Segment, ...]]:
    """Find the segments of one block, and their starts for bisection."""
    zone_rules = rules(zone)
    start, end = index << _BLOCK_BITS, (index + 1) << _BLOCK_BITS
    segments = []
    offset = _offset(zone_rules, start)
    for low in range(start, end, _STRIDE):
        after = _offset(zone_rules, low + _STRIDE)
        if after != offset:
            change = _change(zone_rules, low, low + _STRIDE, offset)
            if change < end:
                segments.append(Segment(start, change, offset))
                start, offset = change, after
    segments.append(Segment(start, end, offset))
    return tuple(segment.start for segment in segments), tuple(segments)


def _change(zone_rules: tzinfo, low: int, high: int, before: int) -> int:
    """Halve down to the instant when the offset is ``before`` no more; it is so at ``high``, and not yet at ``low``."""
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone_rules, middle) == before:
            low = middle
        else:
            high = middle
    return high


def _offset(zone_rules: tzinfo, instant: int) -> int:
    found = datetime.fromtimestamp(instant, zone_rules).utcoffset() or timedelta()
    return found.days * DAY + found.seconds
