"""The instants at which a cron expression fires in a zone, across clock changes. Pure.

We follow Debian cron(8), for five and six fields alike. A time of day (``30 2 * * *``) runs exactly once a day. In Rome it runs
at 03:00 on 29 March 2026, when the clock skips 02:30, and at the first 02:30 on 25 October 2026, when the clock shows 02:30
twice. A rhythm (the second, minute or hour field begins with ``*``; Debian: "wildcard jobs") follows the wall: ``*/30 * * * *``
does not run between 02:00 and 03:00 on 29 March, and on 25 October it runs four times between 02:00 and 03:00.

Debian limits this to changes of less than three hours and takes larger ones for corrections of a wrong clock. We compute from the
rules of a zone, which hold no corrections, so we apply it to changes of any length.

Instants are whole seconds since 1970 UTC, local times are seconds on the wall (see `clock_changes`). A time of day fires at
``instant_reaching(local)``, which never falls when ``local`` rises. So the next instant of a time of day comes from the next
local time, and the instants between two others are as many as the local times between them, less those that one jump merges.
"""

from __future__ import annotations

from cronactors.schedules.clock_changes import DAY, MAX_OVERLAP, Segment, instant_reaching, latest_local_shown, segment_at
from cronactors.schedules.local_times import LocalTimes

_MAX_STEPS = 400
"""How many segments we search for the next instant of a rhythm before we take it for one that never fires.

Each clock change that skips all times of a matching day costs up to four steps, so these are a hundred such days in a row. An
example is ``* 2 * 3 L7`` in Europe/Rome, which names the hour that is skipped each year.
"""


def next_instant(times: LocalTimes, zone: str, instant: int) -> int | None:
    """Find the first instant later than ``instant`` at which a cron expression fires.

    Args:
        times: The parsed expression.
        zone: A checked IANA name.
        instant: Seconds since 1970 UTC, from 1969-12-31 on.

    Returns:
        Seconds since 1970 UTC; None if there is none up to the end of 9998, or if a rhythm never fires in this zone.
    """
    segment = segment_at(zone, instant)
    if instant - segment.start >= MAX_OVERLAP:
        # Nothing from before the last clock change can repeat, so times of day and rhythms are computed alike.
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
    """Find the last instant up to ``instant``, inclusive, at which a cron expression fires.

    Returns:
        Seconds since 1970 UTC; None if it has not fired since 1970.
    """
    if times.rhythm:
        return _latest_of_rhythm(times, zone, instant)
    local = times.at_or_before(latest_local_shown(zone, instant))
    if local is None:
        return None
    found = instant_reaching(zone, local)
    return found if found >= 0 else None


def count_instants(times: LocalTimes, zone: str, first: int, until: int, cap: int) -> int:
    """Count the instants in ``first <= instant <= until`` at which a cron expression fires, up to ``cap``.

    We multiply within each segment and don't step from instant to instant, so a year of ``* * * * * *`` costs a few
    multiplications. Spans in which nothing fires are skipped.
    """
    total = 0
    low = first
    while low <= until and total < cap:
        segment = segment_at(zone, low)
        high = min(segment.end, until + 1)
        found = _count_in_segment(times, zone, Segment(low, high, segment.offset), cap)
        total += found
        if not found and high - low >= MAX_OVERLAP:
            local = times.at_or_after(high + segment.offset)
            if local is None:
                break
            high = max(high, local - 2 * DAY)
        low = high
    return min(total, cap)


def _count_in_segment(times: LocalTimes, zone: str, part: Segment, cap: int) -> int:
    """Count the instants in a segment or a part of one."""
    low, high, offset = part
    if times.rhythm:
        return times.count(low + offset, high + offset, cap)
    # All times that a jump skips, and the one just after it, are a single moment: the jump itself.
    before, at_low, last = (latest_local_shown(zone, instant) for instant in (low - 1, low, high - 1))
    return times.count(before + 1, at_low + 1, 1) + times.count(at_low + 1, last + 1, cap)


def _next_of_rhythm(times: LocalTimes, zone: str, start: int) -> int | None:
    """Find the first instant from ``start`` on at which a rhythm fires, segment by segment."""
    for _ in range(_MAX_STEPS):
        segment = segment_at(zone, start)
        local = times.at_or_after(start + segment.offset)
        if local is None:
            return None
        found = local - segment.offset
        if found < segment.end:
            return found
        # No local time from here to `local` matches, so nothing fires until a day before it; unless the segment ends so soon that
        # local times from before `start` can be shown again.
        far_from_change = segment.end - start >= MAX_OVERLAP
        start = max(segment.end, local - DAY) if far_from_change else segment.end
    return None


def _latest_of_rhythm(times: LocalTimes, zone: str, end: int) -> int | None:
    """Find the last instant up to ``end`` at which a rhythm fires, segment by segment."""
    for _ in range(_MAX_STEPS):
        if end < 0:
            return None
        segment = segment_at(zone, end)
        local = times.at_or_before(end + segment.offset)
        if local is None:
            return None
        found = local - segment.offset
        if found >= segment.start:
            return found if found >= 0 else None
        far_from_change = end - segment.start >= MAX_OVERLAP
        end = min(segment.start - 1, local + DAY) if far_from_change else segment.start - 1
    return None
