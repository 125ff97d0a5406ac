"""When a cron schedule fires in a zone: local times of the calendar become instants across clock changes. Pure.

Debian cron(8)'s rule, for five and six fields alike. A time of day (``30 2 * * *``) runs exactly once a day: at the first moment
after the jump if the clock skips it, at the first showing if the clock shows it twice. A rhythm (second, minute or hour begins
with ``*``) follows the wall: skipped times do not happen, a repeated hour is run again.

Instants are whole seconds since 1970 UTC, local times seconds off the wall. A time of day fires at ``instant_reaching(local)``,
which never falls when local time rises: all that this module does with it rests on that.
"""

from __future__ import annotations

from cronactors.schedules.local_times import LocalTimes
from cronactors.schedules.zones import DAY, MAX_OVERLAP, Segment, instant_reaching, latest_local_shown, segment_at

_MOST_STEPS = 100
"""How many matching days in a row a rhythm may lose to clock changes before it counts as one that never fires.

``* 2 * 3 L7`` in Europe/Rome names the very hour that is skipped each year.
"""


def next_instant(times: LocalTimes, zone: str, instant: int) -> int | None:
    """Find the first instant later than ``instant`` at which a cron schedule fires.

    Args:
        times: The parsed expression.
        zone: A checked IANA name.
        instant: Seconds since 1970 UTC, not before 1970 less a day.

    Returns:
        Seconds since 1970 UTC; None if the calendar ends first, or a rhythm never fires in this zone.
    """
    segment = segment_at(zone, instant)
    if instant - segment.start >= MAX_OVERLAP:
        # Far from a clock change both rules are the same plain sum.
        local = times.at_or_after(instant + segment.offset + 1)
        if local is None:
            return None
        if local - segment.offset < segment.end:
            return local - segment.offset
    if times.rhythm:
        return _next_of_rhythm(times, zone, instant + 1)
    local = times.at_or_after(latest_local_shown(zone, instant) + 1)
    return None if local is None else instant_reaching(zone, local)


def latest_instant(times: LocalTimes, zone: str, instant: int) -> int | None:
    """Find the last instant up to ``instant``, itself included, at which a cron schedule fires; the mirror of `next_instant`.

    Returns:
        Seconds since 1970 UTC; None if it never fired since 1970.
    """
    if times.rhythm:
        return _latest_of_rhythm(times, zone, instant)
    local = times.at_or_before(latest_local_shown(zone, instant))
    if local is None:
        return None
    found = instant_reaching(zone, local)
    return found if found >= 0 else None


def count_instants(times: LocalTimes, zone: str, first: int, until: int, cap: int) -> int:
    """Count the instants in ``first <= instant <= until`` at which a cron schedule fires, to ``cap``.

    Nothing is stepped through: within a stretch of one offset a count is a few multiplications, and empty ones are leapt over.
    """
    total = 0
    low = first
    while low <= until and total < cap:
        segment = segment_at(zone, low)
        high = min(segment.end, until + 1)
        found = _count_of_stretch(times, zone, Segment(low, high, segment.offset), cap)
        total += found
        if not found and high - low >= MAX_OVERLAP:
            local = times.at_or_after(high + segment.offset)
            if local is None:
                break
            high = max(high, local - 2 * DAY)
        low = high
    return min(total, cap)


def _count_of_stretch(times: LocalTimes, zone: str, stretch: Segment, cap: int) -> int:
    """Count the instants in a segment or a part of one."""
    low, high, offset = stretch
    if times.rhythm:
        return times.count(low + offset, high + offset, cap)
    # All times that a jump skips, and the one just after it, are one moment: at the jump.
    before, at_low, last = (latest_local_shown(zone, instant) for instant in (low - 1, low, high - 1))
    return times.count(before + 1, at_low + 1, 1) + times.count(at_low + 1, last + 1, cap)


def _next_of_rhythm(times: LocalTimes, zone: str, start: int) -> int | None:
    """Walk the stretches of one offset from ``start`` on."""
    for _ in range(_MOST_STEPS * 4):
        segment = segment_at(zone, start)
        local = times.at_or_after(start + segment.offset)
        if local is None:
            return None
        found = local - segment.offset
        if found < segment.end:
            return found
        # Nothing matches before this local time, so nothing fires until a day before it, unless the clock is set back at once.
        settled = segment.end - start >= MAX_OVERLAP
        start = max(segment.end, local - DAY) if settled else segment.end
    return None


def _latest_of_rhythm(times: LocalTimes, zone: str, end: int) -> int | None:
    """Walk the stretches of one offset back from ``end``."""
    for _ in range(_MOST_STEPS * 4):
        if end < 0:
            return None
        segment = segment_at(zone, end)
        local = times.at_or_before(end + segment.offset)
        if local is None:
            return None
        found = local - segment.offset
        if found >= segment.start:
            return found if found >= 0 else None
        settled = end - segment.start >= MAX_OVERLAP
        end = min(segment.start - 1, local + DAY) if settled else segment.start - 1
    return None
