"""The grammar of cron expressions: the meaning of accepted ones, the message for refused ones."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.errors import CronError, InvalidSchedule
from cronactors.schedules.calendar import special_days
from cronactors.schedules.cron import parse_cron, split_fields
from cronactors.schedules.cron_fields import HOUR, MINUTE, MONTH_DAY, SECOND, WEEKDAY
from cronactors.schedules.schedule import Cron
from tests.oracle import Expression

EPOCH = datetime(1970, 1, 1)
ALL = tuple(range(60))

TIMES = [
    ("30 2 * * *", (2,), (30,), (0,), False),
    ("15 30 2 * * *", (2,), (30,), (15,), False),
    ("* * * * *", ALL[:24], ALL, (0,), True),
    ("* * * * * *", ALL[:24], ALL, ALL, True),
    ("0 * * * *", ALL[:24], (0,), (0,), True),
    ("0 0-23 * * *", ALL[:24], (0,), (0,), False),
    ("0-59 2 * * *", (2,), ALL, (0,), False),
    ("*/20 2 * * *", (2,), (0, 20, 40), (0,), True),
    ("*/1 2 * * *", (2,), ALL, (0,), True),
    ("*,5 2 * * *", (2,), ALL, (0,), True),
    ("5,* 2 * * *", (2,), ALL, (0,), False),
    ("*/60 */24 * * *", (0,), (0,), (0,), True),
    ("5-5 5-5 * * *", (5,), (5,), (0,), False),
    ("5-5/3 2 * * *", (2,), (5,), (0,), False),
    ("5/15 2 * * *", (2,), (5, 20, 35, 50), (0,), False),
    ("59/15 2 * * *", (2,), (59,), (0,), False),
    ("10-20/5,3,07 2 * * *", (2,), (3, 7, 10, 15, 20), (0,), False),
    ("  0\t2  * *\t* \n", (2,), (0,), (0,), False),
    ("@hourly", ALL[:24], (0,), (0,), True),
    ("@Daily", (0,), (0,), (0,), False),
]  # fmt: skip


@pytest.mark.parametrize(("expr", "hours", "minutes", "seconds", "rhythm"), TIMES)
def test_times_of_an_expression(expr, hours, minutes, seconds, rhythm):
    times = parse_cron(expr)
    assert (times.hours, times.minutes, times.seconds, times.rhythm) == (hours, minutes, seconds, rhythm)


def matching_days(expr, first, last):
    """The matching days between two dates, as text."""
    times = parse_cron(expr)
    at, end = (int((datetime.fromisoformat(text) - EPOCH).total_seconds()) for text in (first, last))
    found = []
    while (at := times.at_or_after(at)) is not None and at <= end:
        found.append((EPOCH + timedelta(seconds=at)).strftime("%m-%d"))
        at += 1
    return found


JULY = ("2026-07-01", "2026-07-31")  # begins on a Wednesday
WEEK = [f"07-{n:02}" for n in range(1, 32)]
DAYS = [
    ("0 0 1-31 * 1", WEEK),
    ("0 0 */2 * 1", [day for n, day in enumerate(WEEK, 1) if n % 2 or n in (6, 13, 20, 27)]),
    ("0 0 13 * 0-6", WEEK),
    ("0 0 13 * *", ["07-13"]),
    ("0 0 13 * ?", ["07-13"]),
    ("0 0 ? * 5", ["07-03", "07-10", "07-17", "07-24", "07-31"]),
    ("0 0 ? * ?", WEEK),
    ("0 0 13 * 5", ["07-03", "07-10", "07-13", "07-17", "07-24", "07-31"]),
    ("0 0 13 * 5-5", ["07-03", "07-10", "07-13", "07-17", "07-24", "07-31"]),
    ("0 0 L * *", ["07-31"]),
    ("0 0 1,l * *", ["07-01", "07-31"]),
    ("0 0 * * L5", ["07-31"]),
    ("0 0 * * L0", ["07-26"]),
    ("0 0 * * l7", ["07-26"]),
    ("0 0 * * 5#2", ["07-10"]),
    ("0 0 * * FRI#2", ["07-10"]),
    ("0 0 * * 7#1", ["07-05"]),
    ("0 0 * * 1,5#2", ["07-06", "07-10", "07-13", "07-20", "07-27"]),
    ("0 0 15W * *", ["07-15"]),
    ("0 0 4W * *", ["07-03"]),
    ("0 0 5W * *", ["07-06"]),
    ("0 0 4W,19W * *", ["07-03", "07-20"]),
    # Either field matches, for special days as for plain ones.
    ("0 0 L * 1", ["07-06", "07-13", "07-20", "07-27", "07-31"]),
    ("0 0 15W * 1#1", ["07-06", "07-15"]),
    ("0 0 1 * 5#2", ["07-01", "07-10"]),
    ("0 0 15W * 1", ["07-06", "07-13", "07-15", "07-20", "07-27"]),
    ("0 0 1-3 * L5", ["07-01", "07-02", "07-03", "07-31"]),
    ("0 0 30 2 3#1", []),
    ("0 0 * 7 sun-sun", ["07-05", "07-12", "07-19", "07-26"]),
    ("0 0 * 7-7 0", ["07-05", "07-12", "07-19", "07-26"]),
    ("0 0 * jul 7", ["07-05", "07-12", "07-19", "07-26"]),
    ("0 0 * JUL-AUG sat-sun", ["07-04", "07-05", "07-11", "07-12", "07-18", "07-19", "07-25", "07-26"]),
    ("0 0 1-7 * ?", WEEK[:7]),
    ("@weekly", ["07-05", "07-12", "07-19", "07-26"]),
    ("@monthly", ["07-01"]),
    ("@yearly", []),
    ("@annually", []),
    ("@midnight", WEEK),
]


@pytest.mark.parametrize(("expr", "expected"), DAYS)
def test_days_of_an_expression(expr, expected):
    assert matching_days(expr, *JULY) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fri-mon", "5 6 0 1"), ("5-1", "5 6 0 1"), ("5-7", "5 6 0"), ("0-7", "0 1 2 3 4 5 6"), ("7-2", "0 1 2"), ("7-7", "0"),
        ("7-0", "0"), ("1-7", "0 1 2 3 4 5 6"), ("fri-mon/2", "5 0"), ("1/2", "1 3 5"), ("7", "0"), ("*/3", "0 3 6"),
        ("1-5/2", "1 3 5"), ("mon,wed-fri", "1 3 4 5"), ("sat-thu", "6 0 1 2 3 4"), ("mon-5", "1 2 3 4 5"), ("6-5", "0 1 2 3 4 5 6"),
    ],
)  # fmt: skip
def test_weekdays_of_an_expression(text, expected):
    found = {datetime.strptime(f"2026-{day}", "%Y-%m-%d").isoweekday() % 7 for day in matching_days(f"0 0 * * {text}", *JULY)}
    assert found == {int(day) for day in expected.split()}


REFUSED = [
    ("", "must not be empty"),
    ("   ", "5 fields are needed"),
    ("* * * *", "not 4"),
    ("0 0 9 * * * 2026", "years are not supported: 7 fields are those of Quartz"),
    ("@reboot", "@reboot is not a time"),
    ("@every 5m", "@every is an interval, not an expression: write Interval(300000)"),
    ("@never", "'@never' is unknown; known are @hourly"),
    ("60 * * * *", "minute '60' is not in 0 to 59"),
    ("60 0 0 * * *", "second '60' is not in 0 to 59"),
    ("* 24 * * *", "hour '24' is not in 0 to 23"),
    ("* * 0 * *", "day of month '0' is not in 1 to 31"),
    ("* * 32 * *", "day of month '32'"),
    ("* * * 0 *", "month '0' is not in 1 to 12"),
    ("* * * 13 *", "month '13'"),
    ("* * * * 8", "day of week '8' is not in 0 to 7"),
    ("-1 * * * *", "minute '-1' cannot be read"),
    ("99999999999999999999 * * * *", "minute '99999999999999999999' is not in 0 to 59"),
    ("9" * 400 + " * * * *", "is not in 0 to 59"),
    ("*/0 * * * *", "minute '*/0': a step must be 1 to 60"),
    ("*/61 * * * *", "minute '*/61': a step must be 1 to 60"),
    ("*/99999999999999999999 * * * *", "a step must be 1 to 60"),
    ("*/-1 * * * *", "cannot be read"),
    ("50-10 * * * *", "minute '50-10': the range goes backwards"),
    ("0 22-2 * * *", "hour '22-2': the range goes backwards"),
    ("50-10 0 0 * * *", "second '50-10': the range goes backwards"),
    ("0 0 28-3 * *", "day of month '28-3': the range goes backwards"),
    ("0 0 * nov-feb *", "month 'nov-feb': the range goes backwards"),
    ("0 0 1w,2w,3w,4w,5w,6w,7w,8w * l0,1#1,L5", "11 special days (L, 15W, L5, 5#2), at most 10 are allowed"),
    ("R * * * *", "minute 'r': random times"),
    ("R(0-10) * * * *", "random times"),
    ("H H * * *", "minute 'h': random times"),
    ("H/15 * * * *", "random times"),
    ("? * * * *", "? can only stand alone, in a day field"),
    ("0 0 ?,1 * *", "? can only stand alone"),
    ("0 0 ?/2 * *", "? can only stand alone"),
    ("1,,2 * * * *", "an item is missing next to a comma"),
    (",1 * * * *", "an item is missing"),
    ("1, * * * *", "an item is missing"),
    ("1- * * * *", "minute '1-' cannot be read"),
    ("1-2-3 * * * *", "cannot be read"),
    ("*-5 * * * *", "cannot be read"),
    ("1/2/3 * * * *", "cannot be read"),
    ("** * * * *", "cannot be read"),
    ("1.5 * * * *", "cannot be read"),
    ("+1 * * * *", "cannot be read"),
    ("0x1 * * * *", "cannot be read"),
    ("1_0 * * * *", "cannot be read"),
    ("mon * * * *", "minute 'mon' cannot be read"),
    ("* * * mon *", "month 'mon' cannot be read"),
    ("* * * * jan", "day of week 'jan' cannot be read"),
    ("* * * * monday", "day of week 'monday' cannot be read; write 'mon'"),
    ("* * * march-Sept *", "month 'march-sept' cannot be read; write 'mar-sep'"),
    ("* * * * tue,thurs/2", "day of week 'thurs/2' cannot be read; write 'thu/2'"),
    ("* * * friday *", "month 'friday' cannot be read"),
    ("* * * * mon/tue", "cannot be read"),
    ("L * * * *", "minute 'l' cannot be read"),
    ("0 0 L-3 * *", "cannot be read"),
    ("0 0 LW * *", "cannot be read"),
    ("0 0 0W * *", "day of month '0' is not in 1 to 31"),
    ("0 0 32W * *", "day of month '32'"),
    ("0 0 W15 * *", "cannot be read"),
    ("0 0 1-15W * *", "cannot be read"),
    ("0 0 * * L", "cannot be read"),
    ("0 0 * * L8", "day of week '8' is not in 0 to 7"),
    ("0 0 * * 5L", "write 'L5'"),
    ("0 0 * * 5#0", "a month has a weekday 1 to 5 times"),
    ("0 0 * * 5#6", "a month has a weekday 1 to 5 times"),
    ("0 0 * * 8#1", "day of week '8'"),
    ("0 0 * * abc#1", "day of week 'abc' cannot be read"),
    ("0 0 * * 1-5#1", "cannot be read"),
    ("0 0 30 2 *", "there is no such date: day of month '30', month '2'"),
    ("0 0 31 4,6,9,11 *", "there is no such date"),
    ("0 0 30,31 feb *", "there is no such date"),
    ("٣ * * * *", "only ASCII characters are allowed, not '\\u0663'"),
    ("0\xa09 * * *", "only ASCII characters"),
    ("0 9 * * *\x1c", "cannot be read"),
    ("0 9 * * *\0", "NUL"),
    ("0 9 * * \ud800", "lone surrogate"),
    ("*" * 501, "too long: 501 characters, at most 500"),
]


@pytest.mark.parametrize(("expr", "why"), REFUSED, ids=lambda value: ascii(value)[:30])
def test_a_wrong_expression_is_refused_with_its_field_and_value(expr, why):
    with pytest.raises(InvalidSchedule) as caught:
        Cron(expr)
    message = str(caught.value)
    assert message.startswith("expr ")
    assert why in message
    assert len(message) <= 500
    assert message.isprintable()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("expr", ["0 0 29 2 *", "0 0 31 1-12 *", "0 0 30 2 1", "0 0 * 2 1#5", "0 0 31W 2 *", "0 0 L 2 *"])
def test_rare_dates_are_accepted(expr):
    assert parse_cron(expr).at_or_after(0) is not None


def test_ten_special_days_are_allowed():
    # Each costs 28 calls of croniter, some 2 ms, when it is first used.
    allowed = "0 0 * * " + ",".join(f"{day}#{nth}" for nth in (1, 3) for day in range(1, 6))
    assert len(matching_days(allowed, *JULY)) == 10
    assert len(matching_days(f"{allowed},1#1,mon#1", *JULY)) == 10
    every = f"0 0 {','.join(f'{n}w' for n in range(1, 32))},L * {','.join(f'l{n}' for n in range(7))}"
    special_days.cache_clear()
    with pytest.raises(InvalidSchedule, match="39 special days"):
        parse_cron(every)
    assert special_days.cache_info().misses == 0


def test_the_fields_of_an_expression():
    written = split_fields("*/20 9-17,7 1,15W * MON,fri#5,5-1/2")
    assert [field.name for field in written] == ["minute", "hour", "day of month", "month", "day of week"]
    assert [each.text for each in written.values()] == ["*/20", "9-17,7", "1,15W", "*", "MON,fri#5,5-1/2"]
    assert [(each.text, each.special, each.values) for each in written[WEEKDAY].items] == [
        ("MON", "", [1]), ("fri#5", "5#5", []), ("5-1/2", "", [5, 0]),
    ]  # fmt: skip
    assert [each.special for each in written[MONTH_DAY].items] == ["", "15w"]
    assert (written[MINUTE].items[0].numbers, written[HOUR].values) == (range(0, 60, 20), {7, *range(9, 18)})
    assert [each.restricted for each in written.values()] == [True, True, True, False, True]
    assert (next(iter(split_fields("0 * * * * ?"))), split_fields("0 * * * * ?")[WEEKDAY].restricted) == (SECOND, False)
    assert split_fields("@weekly")[WEEKDAY].text == "0"
    with pytest.raises(InvalidSchedule, match="minute '60' is not in 0 to 59"):
        split_fields("60 * * * *")


@pytest.mark.parametrize("value", [None, 5, b"0 9 * * *", ["0 9 * * *"], object(), 1.5, True])
def test_an_expression_that_is_not_text_is_refused(value):
    with pytest.raises(InvalidSchedule, match="expr must be text"):
        Cron(value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=40), st.text("0123456789*/-,?LW#@ jansufri\t", max_size=30),
                 st.lists(st.text("0159*/-,LW#r", min_size=1, max_size=5), min_size=5, max_size=6).map(" ".join)))  # fmt: skip
def test_any_text_is_accepted_or_refused_with_a_cron_error(text):
    try:
        Cron(text)
    except CronError as refused:
        message = str(refused)
    else:
        message = "expr is valid"
    assert message.startswith("expr ")


@pytest.mark.parametrize(
    "expr", ["0 9 * * *", "*/7 3-5 */9 * *", "0,30 5,59 1,23 13 * 5", "* * * * * *", "59 59 23 L 2 *", "*/20 */11 * * * mon"]
)
def test_count_agrees_with_stepping_through_local_times(expr):
    times, oracle = parse_cron(expr), Expression(expr)
    begin = int((datetime(2024, 2, 27) - EPOCH).total_seconds())
    step = 1 if expr.startswith(("59", "* * * * * *")) else 60 if len(expr.split()) == 5 else 10
    length = 6 * 86400 if step > 1 else 3 * 86400
    matching = [begin + n for n in range(0, length, step) if oracle.at(EPOCH + timedelta(seconds=begin + n))]
    for start in range(begin, begin + length, 40_003):
        for end in range(start - 3, begin + length, 50_021):
            expected = sum(1 for at in matching if start <= at < end)
            assert times.count(start, end, 10**9) == expected
            for cap in (1, 2, 3, 1000):
                assert times.count(start, end, cap) == min(cap, expected)
