"""The clock changes of a zone, and the mapping between local times and instants across them. Pure.

An instant here is a number of seconds since 1970-01-01 00:00 UTC. A local time is a number of seconds too: those that a clock
without a zone would count from 1970-01-01 00:00 to the date and time on the wall. In 2026 the clock in Europe/Rome skips the
local times from 02:00 to 03:00 on 29 March, and shows those from 02:00 to 03:00 on 25 October twice (PEP 495 calls them a gap and
a fold).

We map them ourselves and don't use ``fold`` of datetime. All of cron's rules rest on two functions: `latest_local_shown` turns an
instant into the latest local time that is past, `instant_reaching` turns a local time into the instant at which it is reached,
and neither ever falls when its argument rises. With datetime arithmetic each caller would have to handle gaps and folds again.

`zoneinfo` has no list of changes, so we find them: we compare the offset every three days (2**18 s) and bisect where it differs.
No zone of the IANA database has changed twice within six days since 1970; a test compares all zones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import tzinfo
from functools import lru_cache
from typing import NamedTuple

from cronactors.schedules.zones import load_zone, utc_offset

DAY = 86_400
"""A day (s). Every zone's offset from UTC is smaller (the rule of Python's ``tzinfo.utcoffset``)."""
MAX_OVERLAP = 2 * DAY
"""How long (s) after a clock change the wall can show again a local time from before it: offsets lie between -1 and +1 day."""

_BLOCK_BITS = 24
"""We cache segments in blocks of 2**24 s, about half a year."""
_STRIDE = 1 << 18
"""How far apart (s) we compare offsets: about three days."""


class Segment(NamedTuple):
    """A span of time with one offset (s): for ``start <= instant < end`` the local time is ``instant + offset``.

    The next segment can have the same offset, since a segment ends with its block at the latest.
    """

    start: int
    end: int
    offset: int


class ClockChange(NamedTuple):
    """An instant (s) at which a zone's offset changes, and the offsets before and after it (s)."""

    at: int
    before: int
    after: int

    @property
    def skipped(self) -> tuple[int, int]:
        """The range of local times that the clock skips, without its end; empty if the clock is set back."""
        return self.at + self.before, self.at + max(self.before, self.after)

    @property
    def repeated(self) -> tuple[int, int]:
        """The range of local times that the clock shows twice, without its end; empty if the clock is set forward."""
        return self.at + min(self.before, self.after), self.at + self.before


def segment_at(zone: str, instant: int) -> Segment:
    """Find the segment in which an instant lies.

    Args:
        zone: A checked IANA name.
        instant: Seconds since 1970 UTC, from 1969 to mid-9998.
    """
    starts, segments = _block(zone, instant >> _BLOCK_BITS)
    return segments[bisect_right(starts, instant) - 1]


def latest_local_shown(zone: str, instant: int) -> int:
    """Find the latest local time that the wall has shown up to an instant, inclusive.

    We need it so that a time of day runs once although the wall shows it twice. On 25 October 2026 clocks in Rome show 02:00 to
    03:00 twice. At 02:10 of the second showing the latest local time shown is 02:59:59, so 02:30 is past and runs on the next
    day. Outside the hour in which the clock catches up, this is simply the local time at the instant.

    We walk back through the segments of two days, as far as a clock change can reach: the longest repeat since 1970 was of seven
    hours (Antarctica/Vostok, 1994).

    Args:
        zone: A checked IANA name.
        instant: Seconds since 1970 UTC.

    Returns:
        A local time in seconds. It never falls when ``instant`` rises.
    """
    segment = segment_at(zone, instant)
    latest = instant + segment.offset
    while segment.start > instant - MAX_OVERLAP:
        previous = segment_at(zone, segment.start - 1)
        latest = max(latest, segment.start - 1 + previous.offset)
        segment = previous
    return latest


def instant_reaching(zone: str, local: int) -> int:
    """Find the first instant at which the wall shows a local time or a later one.

    This is the rule of Debian cron(8) for a time of day: a skipped time runs once the clock has jumped, a repeated one only at
    its first showing. In Rome 02:30 on 29 March 2026 is reached at 01:00 UTC, when the wall jumps to 03:00; 02:30 on 25 October
    2026 is reached at 00:30 UTC, an hour before it is shown again. A job for 30 December 2011 in Pacific/Apia, a date that was
    skipped, runs when the 31st begins.

    Every offset is smaller than a day, so the wall cannot reach ``local`` more than a day before the instant ``local``: we start
    there.

    Args:
        zone: A checked IANA name.
        local: A local time in seconds.

    Returns:
        Seconds since 1970 UTC. It never falls when ``local`` rises.
    """
    segment = segment_at(zone, local - DAY)
    while True:
        found = max(segment.start, local - segment.offset)
        if found < segment.end:
            return found
        segment = segment_at(zone, segment.end)


def is_skipped(zone: str, local: int) -> bool:
    """Return whether the clock in a zone skips a local time (s)."""
    found = instant_reaching(zone, local)
    return found + segment_at(zone, found).offset != local


@lru_cache(maxsize=16384)
def _block(zone: str, index: int) -> tuple[tuple[int, ...], tuple[Segment, ...]]:
    """Find the segments of one block, and their starts for bisection. A block costs 65 offsets, so all of them are cached."""
    zone_rules = load_zone(zone)
    start, end = index << _BLOCK_BITS, (index + 1) << _BLOCK_BITS
    segments = []
    offset = utc_offset(zone_rules, start)
    for low in range(start, end, _STRIDE):
        after = utc_offset(zone_rules, low + _STRIDE)
        if after != offset:
            change = _bisect_change(zone_rules, low, low + _STRIDE, offset)
            if change < end:
                segments.append(Segment(start, change, offset))
                start, offset = change, after
    segments.append(Segment(start, end, offset))
    return tuple(segment.start for segment in segments), tuple(segments)


def _bisect_change(zone_rules: tzinfo, low: int, high: int, before: int) -> int:
    """Find the first instant whose offset is not ``before``. The offset is ``before`` at ``low`` and another one at ``high``."""
    while high - low > 1:
        middle = (low + high) // 2
        if utc_offset(zone_rules, middle) == before:
            low = middle
        else:
            high = middle
    return high


def clock_changes(zone: str, start: int, end: int) -> Iterator[ClockChange]:
    """Yield the clock changes of a zone in ``start < at < end``.

    Args:
        zone: A checked IANA name.
        start: Seconds since 1970 UTC, not before 1969.
        end: Seconds since 1970 UTC, not after mid-9998.
    """
    segment = segment_at(zone, start)
    while segment.end < end:
        following = segment_at(zone, segment.end)
        if following.offset != segment.offset:
            yield ClockChange(following.start, segment.offset, following.offset)
        segment = following


def shown_twice(zone: str, instant: int) -> ClockChange | None:
    """Find the clock change because of which the local time of an instant is shown twice; None if it is shown once.

    Args:
        zone: A checked IANA name.
        instant: Seconds since 1970 UTC.
    """
    local = instant + segment_at(zone, instant).offset
    for change in clock_changes(zone, instant - MAX_OVERLAP, instant + MAX_OVERLAP):
        low, high = change.repeated
        if low <= local < high:
            return change
    return None
