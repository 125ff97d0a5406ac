"""The calendar of the library: 1969 to 9998, months of every shape."""

from __future__ import annotations

import calendar
from datetime import date

import pytest

from cronactors.schedules.calendar import DayField, day_rule


def number(year: int, month: int, day: int) -> int:
    return date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()


@pytest.mark.parametrize(
    ("months", "day", "asked", "expected"),
    [
        ([12], 31, (9998, 11, 30), (9998, 12, 31)),
        ([12], 1, (9998, 1, 1), (9998, 12, 1)),
        ([1], 1, (9998, 1, 2), None),  # 9999 is beyond the calendar
        ([1], 1, (9998, 12, 31), None),
        ([1], 31, (9998, 1, 31), (9998, 1, 31)),
        ([12], 31, (9997, 12, 31), (9997, 12, 31)),
        ([11], 30, (9997, 12, 1), (9998, 11, 30)),
    ],
)
def test_the_last_year(months, day, asked, expected):
    found = day_rule(months, DayField(frozenset([day])), None).at_or_after(number(*asked))
    assert found == (None if expected is None else number(*expected))


@pytest.mark.parametrize(
    ("months", "day", "asked", "expected"),
    [
        ([1], 1, (1969, 2, 1), (1969, 1, 1)),
        ([1], 31, (1969, 12, 31), (1969, 1, 31)),
        ([12], 31, (1969, 12, 30), None),  # 1968 is before the calendar
        ([12], 1, (1969, 1, 31), None),
        ([12], 31, (1969, 12, 31), (1969, 12, 31)),
        ([1], 1, (1970, 1, 1), (1970, 1, 1)),
        ([2], 28, (1970, 2, 27), (1969, 2, 28)),
    ],
)
def test_the_first_year(months, day, asked, expected):
    found = day_rule(months, DayField(frozenset([day])), None).at_or_before(number(*asked))
    assert found == (None if expected is None else number(*expected))


@pytest.mark.parametrize("weekday", range(7))
def test_weekdays_of_every_month_of_28_years_and_of_those_without_a_leap_day(weekday):
    rule = day_rule(range(1, 13), None, DayField(frozenset([weekday])))
    for year in (*range(1996, 2024), 2000, 2100, 2200, 2400, 9996):
        for month in range(1, 13):
            first, length = calendar.monthrange(year, month)
            days = [day for day in range(1, length + 1) if (first + day) % 7 == weekday]
            start, end = number(year, month, 1), number(year, month, 1) + length
            assert rule.count(start, end, 10) == len(days)
            assert rule.at_or_after(start) == number(year, month, days[0])
            assert rule.at_or_before(end - 1) == number(year, month, days[-1])


@pytest.mark.parametrize(
    ("months", "longest", "shortest"),
    [([1], 31, 31), ([2], 29, 28), ([4], 30, 30), ([2, 4], 30, 28), ([2, 12], 31, 28), ([6, 7], 31, 30), (range(1, 13), 31, 28)],
)
def test_the_longest_and_the_shortest_month(months, longest, shortest):
    rule = day_rule(months, None, None)
    assert (rule.longest_month, rule.shortest_month) == (longest, shortest)


def test_counting_stops_soon_after_the_cap():
    rule = day_rule(range(1, 13), None, None)
    start, end = number(2000, 1, 1), number(9998, 1, 1)
    assert 5 <= rule.count(start, end, 5) <= 5 + 31
    assert rule.count(start, start + 5, 5) == 5
    assert rule.count(start, start, 5) == 0
    assert rule.count(end, start, 5) == 0
