"""When cron schedules fire at the ends of the calendar, and where clock changes swallow all their moments."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cronactors.instants import LATEST, Millis, to_millis
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
