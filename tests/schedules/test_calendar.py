"""Rules for days, compared with the calendar of the standard library."""

from __future__ import annotations

import calendar
from datetime import date, datetime, timedelta

import pytest
from croniter import croniter

from cronactors.errors import InvalidSchedule
from cronactors.schedules.calendar import DayField, day_rule, special_days
from tests.oracle import Expression

EPOCH = date(1970, 1, 1)
TOKENS = [
    "l",
    *(f"{n}w" for n in range(1, 32)),
    *(f"l{n}" for n in range(7)),
    *(f"{d}#{n}" for d in range(7) for n in range(1, 6)),
]


def days_between(first, last):
    return (first + timedelta(days=n) for n in range((last - first).days))


def number(day):
    return (day - EPOCH).days


@pytest.mark.parametrize("token", TOKENS)
def test_special_days_are_those_of_brute_force(token):
    masks = special_days(token)
    field = "* *" if token[1:].isdigit() or "#" in token else "* * *"
    text = f"0 0 {field} {token}" if field == "* *" else f"0 0 {token} * *"
    if field == "* *":
        text = f"0 0 * * {token}"
    oracle = Expression(text)
    for year in range(2019, 2047):
        for month in range(1, 13):
            first, length = calendar.monthrange(year, month)
            expected = sum(1 << day for day in range(1, length + 1) if oracle.on(date(year, month, day)))
            assert masks[(length - 28) * 7 + first] == expected, (year, month)


@pytest.mark.parametrize("token", ["x", "8w8", "l9", "5#6", "5#0", "32w", "0w", "", "lw"])
def test_an_unknown_special_day_raises_invalid_schedule(token):
    with pytest.raises(InvalidSchedule, match="special day"):
        special_days(token)


RULES = [
    ("* *", None, None),
    ("1-31 1", range(1, 32), [1]),
    ("*/2 1", range(1, 32, 2), [1]),
    ("13 5", [13], [5]),
    ("* 1-5", None, range(1, 6)),
    ("* 0-6", None, range(7)),
    ("31 *", [31], None),
    ("29,30 0", [29, 30], [0]),
]


@pytest.mark.parametrize(("text", "month_days", "weekdays"), RULES)
@pytest.mark.parametrize("months", [range(1, 13), [2], [2, 12], [4, 6]])
def test_a_rule_matches_the_days_of_brute_force(text, month_days, weekdays, months):
    rule = day_rule(
        months,
        None if month_days is None else DayField(frozenset(month_days)),
        None if weekdays is None else DayField(frozenset(weekdays)),
    )
    month_day, weekday = text.split()
    oracle = Expression(f"0 0 {month_day} {','.join(map(str, months))} {weekday}")
    window = list(days_between(date(2095, 11, 20), date(2105, 2, 10)))  # over 2100, which is no leap year
    matching = [number(day) for day in window if oracle.on(day)]
    assert rule.ever_matches() is bool(matching)
    if not matching:
        assert rule.at_or_after(0) is None
        assert rule.at_or_before(0) is None
        return
    found = [rule.at_or_after(number(window[0]))]
    while found[-1] <= matching[-1]:
        found.append(rule.at_or_after(found[-1] + 1))
    assert found[:-1] == matching
    back = [rule.at_or_before(number(window[-1]))]
    while back[-1] >= matching[0]:
        back.append(rule.at_or_before(back[-1] - 1))
    assert back[-2::-1] == matching
    for start in range(number(window[0]), number(window[-1]), 97):
        for length in (0, 1, 2, 27, 28, 31, 32, 366, 1500):
            expected = sum(1 for day in matching if start <= day < start + length)
            if start + length <= number(window[-1]):
                assert rule.count(start, start + length, 10**6) == expected
                assert rule.count(start, start + length, 5) >= min(5, expected)


@pytest.mark.parametrize(
    "text", ["* * 1-5", "1,15 * *", "13 * 5", "L * *", "* * L5", "* * 5#2", "15W * *", "29 2 *", "* 2 1#5", "*/10 3,7 *"]
)
def test_brute_force_agrees_with_croniter_on_plain_expressions(text):
    oracle = Expression(f"0 0 {text}")
    iterator = croniter(f"0 0 {text}", datetime(2026, 1, 1))
    for _ in range(30):
        previous = iterator.get_current(datetime)
        found = iterator.get_next(datetime)
        assert oracle.on(found.date())
        assert not any(oracle.on(day) for day in days_between(previous.date() + timedelta(days=1), found.date()))


ALL = range(1, 13)
CALENDAR = [
    # Months, days of the month, weekdays; then the last day of the longest month, and whether a month has no matching day,
    # whether two matching days follow each other, and whether every year has one.
    (ALL, None, None, 31, False, True, True),
    ([2], None, None, 29, False, True, True),
    ([4, 6], [1], None, 30, False, False, True),
    ([2, 4], [30], None, 30, True, False, True),
    ([2], [29], None, 29, True, False, False),
    ([2], [28, 29], None, 29, False, True, True),
    (ALL, [31], None, 31, True, False, True),
    (ALL, [1, 31], None, 31, False, True, True),
    ([1, 12], [1, 31], None, 31, False, True, True),
    ([1, 3], [1, 31], None, 31, False, False, True),
    (ALL, None, [1], 31, False, False, True),
    (ALL, None, [6, 0], 31, False, True, True),
    (ALL, [13], [5], 31, False, True, True),
    ([6], [13], [0], 30, False, True, True),
]


@pytest.mark.parametrize(("months", "month_days", "weekdays", "longest", "leaves_out", "in_a_row", "every_year"), CALENDAR)
def test_properties_of_a_rule(months, month_days, weekdays, longest, leaves_out, in_a_row, every_year):
    rule = day_rule(
        months,
        None if month_days is None else DayField(frozenset(month_days)),
        None if weekdays is None else DayField(frozenset(weekdays)),
    )
    assert (rule.longest_month, rule.leaves_months_out(), rule.has_consecutive_days()) == (longest, leaves_out, in_a_row)
    assert rule.matches_every_year() is every_year


def test_days_in_400_years():
    assert day_rule(ALL, None, None).count_in_400_years() == 146_097
    assert day_rule([2], DayField(frozenset([29])), None).count_in_400_years() == 97


def test_no_day_is_found_outside_1969_to_9998():
    rule = day_rule(range(1, 13), None, None)
    assert rule.at_or_after(number(date(9998, 12, 31))) == number(date(9998, 12, 31))
    assert rule.at_or_after(number(date(9999, 1, 1))) is not None  # the month of the argument is always searched
    assert rule.at_or_before(number(date(1969, 1, 1))) == number(date(1969, 1, 1))
    february = day_rule([2], DayField(frozenset([29])), None)
    assert february.at_or_after(number(date(9996, 3, 1))) is None
    assert february.at_or_before(number(date(1972, 2, 28))) is None
