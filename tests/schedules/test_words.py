"""Schedules in words: examples, and a reader that takes the words of any expression back to its times and days."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from datetime import date, timedelta

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.schedules.cron import parse_cron
from cronactors.schedules.schedule import MAX_INTERVAL, Cron, Interval, OneShot
from cronactors.schedules.words import MOST, schedule_in_words
from tests.schedules.cron_strategies import expressions, few_hours, items, parsed, star

WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = list(calendar.month_name)
ORDINALS = ["first", "second", "third", "fourth", "fifth"]
UNITS = {"hour": 3600, "minute": 60, "second": 1}
EPOCH = date(1970, 1, 1)
DATES = [date(2027, 1, 1) + timedelta(days=number) for number in range(731)]  # with a 29 February


@pytest.mark.parametrize(
    ("expr", "words"),
    [
        ("0 9 * * 1-5", "at 09:00, Monday to Friday"),
        ("*/15 * * * *", "every 15 minutes"),
        ("30 2 1 * *", "at 02:30 on day 1 of the month"),
        ("0 0 1 * mon", "at 00:00 on day 1 of the month and on Monday"),
        ("0 9 * * *", "at 09:00 every day"),
        ("@hourly", "every hour"),
        ("@daily", "at 00:00 every day"),
        ("@weekly", "at 00:00 on Sunday"),
        ("@monthly", "at 00:00 on day 1 of the month"),
        ("@yearly", "at 00:00 on 1 January"),
        ("* * * * *", "every minute"),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("30 * * * * *", "at second 30 of every minute"),
        ("0 9 * * * *", "at minute 9 of every hour"),
        ("30 0 9 * * *", "at 09:00:30 every day"),
        ("30 * * * *", "at minute 30 of every hour"),
        ("*/45 * * * *", "at minutes 0 and 45 of every hour"),
        ("*/45 9-17 * * *", "at minutes 0 and 45 of hours 9 to 17 every day"),
        ("*/15 9-17 * * 1-5", "every 15 minutes from 09:00 to 17:45, Monday to Friday"),
        ("0 */6 * * *", "every 6 hours"),
        ("15 */2 * * sat,sun", "every 2 hours from 00:15 to 22:15 on Saturday and Sunday"),
        ("0,30 9 * * *", "at 09:00 and 09:30 every day"),
        ("0 0,12 * * *", "at 00:00 and 12:00 every day"),
        ("0 12-23 * * *", "every hour from 12:00 to 23:00 every day"),
        ("0,2,3,5,8 9 * * *", "at 09:00, 09:02, 09:03, 09:05 and 09:08 every day"),
        ("30 15 * * * *", "every hour from 00:15:30 to 23:15:30 every day"),
        ("0 9 * * 0-6", "at 09:00 every day"),
        ("0 0 L * *", "at 00:00 on the last day of the month"),
        ("0 0 15W * *", "at 00:00 on the weekday nearest to day 15 of the month"),
        ("0 0 31W * *", "at 00:00 on the weekday nearest to day 31 (or to the last day) of the month"),
        ("0 0 * * L5", "at 00:00 on the last Friday of the month"),
        ("0 0 * * 5#2", "at 00:00 on the second Friday of the month"),
        ("0 0 1,L * mon,L5", "at 00:00 on day 1 of the month, on the last day of the month, on Monday and on the last Friday of the month"),
        ("0 0 * * fri-mon", "at 00:00, Friday to Monday"),
        ("0 0 */2 * mon", None),
        ("0 0 29 2 *", "at 00:00 on 29 February"),
        ("0 0 1,15 jan,jul *", "at 00:00 on days 1 and 15 of the month, in January and July"),
        ("0 0 1 1-3,12 mon", "at 00:00 on day 1 of the month and on Monday, in January to March and December"),
        ("0 9 */1 * mon", "at 09:00 every day"),
        ("*/5 * * 8 *", "every 5 minutes, in August"),
        ("1-59/2 9,11,14 3-29/5 * 1,3", None),
    ],
)  # fmt: skip
def test_expressions(expr: str, words: str | None) -> None:
    assert words in (None, schedule_in_words(Cron(expr)))
    assert_true(expr)


def test_what_is_too_long_names_the_expression() -> None:
    expr = "1-59/2\t9,11,14 3-29/5 * 1,3"
    assert schedule_in_words(Cron(expr)) == "at the times of 1-59/2 9,11,14 3-29/5 * 1,3"


@pytest.mark.parametrize(
    ("every_ms", "words"),
    [
        (90_000, "every 90 s"),
        (21_600_000, "every 6 h"),
        (5_400_000, "every 90 min"),
        (86_400_000, "every 24 h"),
        (7 * 86_400_000, "every 7 days"),
        (250, "every 250 ms"),
        (1_500, "every 1.5 s"),
        (61_001, "every 61.001 s"),
        (MAX_INTERVAL, "every 36,525 days"),
    ],
)
def test_intervals(every_ms: int, words: str) -> None:
    assert schedule_in_words(Interval(every_ms)) == words


@given(st.integers(1, MAX_INTERVAL) | st.integers(1, 100_000))
def test_an_interval_can_be_read_back(every_ms: int) -> None:
    number, unit = schedule_in_words(Interval(every_ms)).removeprefix("every ").split()
    size = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "days": 86_400_000}[unit]
    whole, _, part = number.replace(",", "").partition(".")
    assert int(whole) * size + int(part.ljust(3, "0") or 0) * size // 1000 == every_ms


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("2026-03-29 09:00", "once, at 2026-03-29 09:00"),
        ("2026-03-29T09:00:00+02:00", "once, at 2026-03-29 09:00 +02:00"),
        ("2026-03-29T09:00:05z", "once, at 2026-03-29 09:00:05 UTC"),
        ("2026-03-29T09:00:05,25-03:30", "once, at 2026-03-29 09:00:05.250 -03:30"),
    ],
)
def test_one_shots(at: str, words: str) -> None:
    assert schedule_in_words(OneShot(at)) == words


# The reader


def split(text: str) -> list[str]:
    return re.split(r", | and ", text)


def numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in split(text):
        low, _, high = part.partition(" to ")
        found |= set(range(int(low), int(high or low) + 1))
    return found


def clock(text: str) -> int:
    hour, minute, second = map(int, [*text.split(":"), "0"][:3])
    return hour * 3600 + minute * 60 + second


def distance(text: str) -> int:
    number, _, unit = text.rpartition(" ")
    return int(number or 1) * UNITS[unit.removesuffix("s")]


def read_times(text: str) -> set[int]:
    """Return the times of a day (s)."""
    if found := re.fullmatch(r"every ([^:]+?)(?: from (\S+) to (\S+))?", text):
        if found[2]:
            return set(range(clock(found[2]), clock(found[3]) + 1, distance(found[1])))
        if " of " not in text:
            step = distance(found[1])
            assert 86_400 % step == 0
            return set(range(0, 86_400, step))
    if ":" in text:
        return set(map(clock, split(text.removeprefix("at "))))
    values = {"hour": set(range(24)), "minute": set(range(60)), "second": {0}}
    for part in text.removeprefix("at ").split(" of "):
        noun, _, listed = part.removeprefix("every ").partition(" ")
        if part.startswith("every"):
            values[noun] = set(range(24 if noun == "hour" else 60))
        else:
            values[noun.removesuffix("s")] = numbers(listed)
    return {
        hour * 3600 + minute * 60 + second
        for hour in values["hour"]
        for minute in values["minute"]
        for second in values["second"]
    }


def cyclic(text: str, names: list[str]) -> set[str]:
    found: set[str] = set()
    for part in split(text):
        low, _, high = part.partition(" to ")
        start = names.index(low)
        length = (names.index(high or low) - start) % len(names) + 1
        found |= {names[(start + step) % len(names)] for step in range(length)}
    return found


def nearest_weekday(day: date, wanted: int) -> int:
    """The weekday nearest to a day of the month, or to its last day, in the same month."""
    length = calendar.monthrange(day.year, day.month)[1]
    target = min(wanted, length)
    others = [other for other in range(1, length + 1) if date(day.year, day.month, other).weekday() < 5]
    return min(others, key=lambda other: abs(other - target))


def matches(piece: str, day: date) -> bool:
    """Return whether a day is one of those that a piece names, such as "day 1 of the month"."""
    length = calendar.monthrange(day.year, day.month)[1]
    name = WEEKDAYS[day.weekday()]
    if not piece.endswith(" of the month"):
        return name in cyclic(piece, WEEKDAYS)
    piece = piece.removesuffix(" of the month")
    if piece == "the last day":
        return day.day == length
    if found := re.fullmatch(r"the weekday nearest to day (\d+)( \(or to the last day\))?", piece):
        return day.day == nearest_weekday(day, int(found[1]))
    if found := re.fullmatch(r"the last (\w+)", piece):
        return name == found[1] and day.day + 7 > length
    if found := re.fullmatch(r"the (\w+) (\w+)", piece):
        return name == found[2] and (day.day - 1) // 7 == ORDINALS.index(found[1])
    return day.day in numbers(re.fullmatch(r"days? (.*)", piece)[1])  # type: ignore[index]


def read_days(text: str) -> Iterator[date]:
    """Yield the dates among `DATES` on which it fires; the text is that after the times."""
    text, _, months = text.partition(", in ")
    if found := re.fullmatch(r" on ([\d ,toand]+) ([A-Z][a-z]+)", text):
        days, months = numbers(found[1]), found[2]
        pieces = None
    else:
        days = set()
        pieces = [] if text in ("", " every day") else re.split(r"(?:, | and )on ", re.sub(r"^( on |, )", "", text))
    wanted = cyclic(months, MONTHS[1:]) if months else set(MONTHS)
    for day in DATES:
        is_named = day.day in days if pieces is None else not pieces or any(matches(piece, day) for piece in pieces)
        if is_named and MONTHS[day.month] in wanted:
            yield day


def assert_true(expr: str) -> None:
    words = schedule_in_words(Cron(expr))
    assert len(words) <= max(MOST, len(expr) + 30)
    if words.startswith("at the times of "):
        assert parse_cron(words.removeprefix("at the times of ")) == parse_cron(expr)
        return
    found = re.search(r" every day|,? on |, in |, [A-Z]", words)
    cut = found.start() if found else len(words)
    assert_times(expr, words[:cut])
    rule = parse_cron(expr).days
    days = [day for day in DATES if rule.at_or_after((day - EPOCH).days) == (day - EPOCH).days]
    assert list(read_days(words[cut:])) == days, words


def assert_times(expr: str, words: str) -> None:
    times = parse_cron(expr)
    expected = {
        hour * 3600 + minute * 60 + second for hour in times.hours for minute in times.minutes for second in times.seconds
    }
    assert read_times(words) == expected, words


lists = [items(0, 59, star), items(0, 59, star), items(0, 23, star)]
short = [st.sampled_from(["0", "0", "30", "0,30", "*", "*/15", "30/15"]), st.sampled_from(["0", "*", "*/20", "7"]), few_hours]


@given(st.tuples(*(one | other for one, other in zip(lists, short, strict=True))).map(" ".join))
@settings(max_examples=300)
def test_the_words_name_the_times_of_day(times: str) -> None:
    expr = f"{times} * * *"
    words = schedule_in_words(Cron(expr))
    if not words.startswith("at the times of "):
        assert_times(expr, words.removesuffix(" every day"))


@given(expressions)
def test_the_words_name_the_times_and_days_of_the_expression(expr: str) -> None:
    if parsed(expr) is not None:
        assert_true(expr)
