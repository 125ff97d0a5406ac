"""When cron schedules fire at the ends of the calendar, and where clock changes swallow all their moments."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cronactors.instants import LATEST, Millis, to_millis
from cronactors.schedules import zones
from cronactors.schedules.fire_times import count_moments, latest_moment, next_moment
from cronactors.schedules.schedule import Cron


def utc(*parts: int) -> Millis:
    return to_millis(datetime(*parts, tzinfo=UTC))  # type: ignore[misc]


@pytest.mark.parametrize("expr", ["0 0 29 2 *", "* 0 29 2 *"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome", "America/New_York"])
def test_the_last_leap_day_is_counted_to_the_end_of_time(expr, zone):
    cron = Cron(expr)
    first = next_moment(cron, after=utc(9996, 2, 1), zone=zone, anchor=0)
    assert first is not None
    assert count_moments(cron, first=first, until=LATEST, zone=zone, anchor=0) == (60 if cron.expr.startswith("*") else 1)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome", "America/New_York"])
@pytest.mark.parametrize("after", [(9997, 10, 31, 1), (9997, 11, 25), (9997, 12, 1), (9997, 12, 31, 23)])
def test_nothing_fires_after_the_last_leap_day(zone, after):
    for expr in ("0 0 29 2 *", "* 0 29 2 *"):
        assert next_moment(Cron(expr), after=utc(*after), zone=zone, anchor=0) is None


@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome", "America/New_York", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize(
    ("expr", "until"),
    [
        ("* * 1 3 *", (1970, 2, 1)),  # it would have fired in 1969
        ("* * 29 2 *", (1971, 12, 1)),  # the calendar of the library begins with 1969, and so without a leap day
        ("0 0 1 3 *", (1970, 2, 1)),
        ("0 0 29 2 *", (1971, 12, 1)),
        ("* * 31 12 *", (1970, 1, 2, 12)),
    ],
)
def test_nothing_fired_before_1970(zone, expr, until):
    found = latest_moment(Cron(expr), until=utc(*until), zone=zone, anchor=0)
    first = next_moment(Cron(expr), after=-1, zone=zone, anchor=0)
    assert first is not None
    assert found is None if first > utc(*until) else found is not None and found >= first


@pytest.mark.parametrize(
    ("expr", "zone", "expected"),
    [
        # Local time was behind UTC in all three, so that the last day of 1969 ended in 1970.
        ("* * 31 12 *", "Pacific/Honolulu", (1970, 1, 1, 9, 59)),
        ("* * 31 12 *", "Pacific/Kiritimati", (1970, 1, 1, 10, 39)),
        ("0 0 1 1 *", "Etc/GMT+12", (1970, 1, 1, 12)),
        ("0 23 31 12 *", "Pacific/Honolulu", (1970, 1, 1, 9)),
    ],
)
def test_local_times_of_1969_that_are_instants_of_1970(expr, zone, expected):
    assert latest_moment(Cron(expr), until=utc(1970, 1, 2), zone=zone, anchor=0) == utc(*expected)
    assert next_moment(Cron(expr), after=-1, zone=zone, anchor=0) in range(utc(1970, 1, 1), utc(*expected) + 1)


def test_a_rhythm_that_is_swallowed_each_year_counts_as_never_fired_after_some_centuries():
    cron = Cron("* 2 * 3 L7")  # Italy skips this hour each year since 1981
    assert latest_moment(cron, until=utc(2100, 1, 1), zone="Europe/Rome", anchor=0) == utc(1980, 3, 30, 1, 59)
    assert latest_moment(cron, until=utc(9997, 1, 1), zone="Europe/Rome", anchor=0) is None


@pytest.mark.parametrize(
    ("expr", "zone", "days", "expected"),
    [
        # Rome goes forward on 29 March 2026, from 02:00 to 03:00, and back on 25 October, from 03:00 to 02:00.
        ("59 59 1 * * *", "Europe/Rome", ((2026, 3, 28), (2026, 3, 30, 12)), 3),
        ("0 0 2 * * *", "Europe/Rome", ((2026, 3, 28), (2026, 3, 31)), 3),
        ("0 0 3 * * *", "Europe/Rome", ((2026, 3, 28), (2026, 3, 31)), 3),
        ("0,59 0,59 1-3 * * *", "Europe/Rome", ((2026, 3, 29), (2026, 3, 30)), 3 + 1 + 3 + 4),  # 02:00 to 03:00:00 is one moment
        ("59 59 2 * * *", "Europe/Rome", ((2026, 10, 24), (2026, 10, 27)), 3),
        ("0 0 3 * * *", "Europe/Rome", ((2026, 10, 24), (2026, 10, 27)), 3),
        ("59 59 2,3 * * *", "Europe/Rome", ((2026, 10, 24), (2026, 10, 27)), 6),
        # A second before the border between two stretches, where nothing changes, and at it: 2**24 * 106 s.
        ("15 48 3 * * *", "UTC", ((2026, 5, 10), (2026, 5, 12)), 2),
        ("16 48 3 * * *", "UTC", ((2026, 5, 10), (2026, 5, 12)), 2),
    ],
)
def test_moments_next_to_a_clock_change_are_counted_once(expr, zone, days, expected):
    start, end = (utc(*day) for day in days)
    stepped = []
    found = next_moment(Cron(expr), after=start, zone=zone, anchor=0)
    while found is not None and found < end:
        stepped.append(found)
        found = next_moment(Cron(expr), after=found, zone=zone, anchor=0)
    assert len(stepped) == expected
    assert count_moments(Cron(expr), first=stepped[0], until=end - 1, zone=zone, anchor=0) == expected


@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome", "America/New_York", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("expr", ["0 0 1 1 *", "59 23 31 12 *", "0 12 29 6 *", "* 5 17 9 *", "0 0 1 */6 *"])
def test_rare_moments_of_130_years_are_all_counted(zone, expr):
    cron = Cron(expr)
    first = next_moment(cron, after=utc(1971, 1, 5), zone=zone, anchor=0)
    assert first is not None
    each_year = {"* 5 17 9 *": 60, "0 0 1 */6 *": 2}.get(expr, 1)
    for years in (1, 2, 10, 130):
        until = utc(1971 + years, 1, 5) - 1
        assert count_moments(cron, first=first, until=until, zone=zone, anchor=0, cap=10**6) == years * each_year


def looks_at_zones() -> int:
    """How often anything about a zone was looked up."""
    infos = [function.cache_info() for function in vars(zones).values() if hasattr(function, "cache_info")]
    return sum(info.hits + info.misses for info in infos)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome"])
def test_stretches_without_a_moment_are_leapt_over(zone):
    # Each of these years has two to four stretches of one offset: 28 years would be some 100 looks, and 400 years 4,000.
    monday = Cron("* 0 * 2 1#5")  # 29 February, if it is a Monday: 2016, 2044, 2072
    before = looks_at_zones()
    assert next_moment(monday, after=utc(2044, 3, 1), zone=zone, anchor=0) in range(utc(2072, 2, 28), utc(2072, 3, 1))
    assert latest_moment(monday, until=utc(2044, 2, 1), zone=zone, anchor=0) in range(utc(2016, 2, 28), utc(2016, 3, 1))
    assert looks_at_zones() - before <= 10
    before = looks_at_zones()
    assert count_moments(Cron("0 0 29 2 *"), first=utc(2000, 2, 28, 12), until=utc(2399, 1, 1), zone=zone, anchor=0) == 97
    assert looks_at_zones() - before <= 1_500
