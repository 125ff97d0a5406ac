"""The local times of an expression, against a list of all of them."""

from __future__ import annotations

from itertools import product

import pytest

from cronactors.schedules.cron import parse_cron

DAY = 86_400
START = 20_000 * DAY  # 2024-10-04, a Friday
DAYS = 12

EXPRESSIONS = [
    "5,40 7 3,20 * * *",
    "0 0,59 0,23 * * *",
    "59 59 23 * * *",
    "0 0 0 * * *",
    "10-12 30 6,7 * * 1,4",
    "7 1,2 12 5,9,10 * *",
    "30 15,45 8,9,22 * * sun",
]


def listed(expr: str) -> list[int]:
    """All its times of some days, in order, from the fields that its test data use."""

    def numbers(text: str) -> list[int]:
        if "-" in text:
            low, high = text.split("-")
            return list(range(int(low), int(high) + 1))
        return [int(part) for part in text.split(",")]

    seconds, minutes, hours, month_day, _, weekday = expr.split()
    found = []
    for day in range(DAYS):
        date = 4 + day  # of October 2024
        if month_day != "*" and date not in numbers(month_day):
            continue
        if weekday != "*" and (5 + day) % 7 not in numbers(weekday.replace("sun", "0")):
            continue
        found += [
            START + day * DAY + hour * 3600 + minute * 60 + second
            for hour, minute, second in product(numbers(hours), numbers(minutes), numbers(seconds))
        ]
    return found


def around(times: list[int]) -> list[int]:
    """Instants at which a mistake would show: one second about each time, each hour and each day."""
    near = {time + by for time in times for by in (-3601, -3600, -61, -60, -1, 0, 1, 60, 61, 3600, 3601)}
    return sorted(
        look for look in near | {START + hour * 3600 for hour in range(24 * DAYS)} if START <= look < START + DAYS * DAY
    )


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_the_next_and_the_previous_time(expr):
    times, cron = listed(expr), parse_cron(expr)
    for look in around(times):
        later = [time for time in times if time >= look]
        earlier = [time for time in times if time <= look]
        if later:
            assert cron.at_or_after(look) == later[0]
        if earlier:
            assert cron.at_or_before(look) == earlier[-1]
        assert (cron.at_or_after(look) == look) is (look in times)
        assert (cron.at_or_before(look) == look) is (look in times)


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_a_count_is_the_length_of_the_list(expr):
    times, cron = listed(expr), parse_cron(expr)
    looks = around(times)
    for start, end in product(looks[::7], looks[::11]):
        expected = sum(start <= time < end for time in times)
        assert cron.count(start, end, 10_000) == expected
        assert cron.count(start, end, 3) == min(3, expected)
    for time in times[:20]:
        assert cron.count(time, time, 10) == 0
        assert cron.count(time, time + 1, 10) == 1
        assert cron.count(time + 1, time, 10) == 0


@pytest.mark.parametrize(
    ("expr", "per_day", "rhythm", "keeps_local_time"),
    [
        ("30 2 * * *", 1, False, True),
        ("0,30 2-4 * * *", 6, False, True),
        ("0,10 0,30 2-4 * * *", 12, False, True),
        ("* 2 * * *", 60, True, True),
        ("*/30 * * * *", 48, True, False),
        ("0 * * * *", 24, True, False),
        ("0 0-23 * * *", 24, False, True),
        ("*/30 0-22 * * *", 46, True, True),
        ("* 0 0 * * *", 60, True, True),
    ],
)
def test_what_is_known_of_the_times(expr, per_day, rhythm, keeps_local_time):
    times = parse_cron(expr)
    assert (times.per_day, times.rhythm, times.keeps_local_time) == (per_day, rhythm, keeps_local_time)
