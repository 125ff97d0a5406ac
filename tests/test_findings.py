"""What lint says, and what it leaves alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from inspect import getdoc
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings

from cronactors.errors import InvalidSchedule
from cronactors.findings import lint
from cronactors.schedule import Cron, Interval, OneShot
from tests.test_moments import ZONES, expressions, parsed, places

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROME = "Europe/Rome"

CLEAN = [
    "0 9 * * *", "0 0 9 * * *", "*/15 * * * *", "* * * * *", "@daily", "@hourly", "@yearly", "0 0 * * * *", "0 */5 * * * *",
    "0 30 * * * *", "0 * * * * *", "0 */6 * * *", "10/20 * * * *", "*/60 * * * *", "*/1 * * * *", "8-18/3 12 * * *", "0 9 L * *",
    "0 9 15W * *", "0 9 * * L5", "0 9 * * fri#2", "0 9 1-7 * *", "0 9 31 1,12 *", "0 9 29 1,3 *", "0 9 * */3 *", "0 9 1,15 * ?",
    "0 9 31W 1 *", "0 9 * * fri-mon", "0 9 */31 * *",
]  # fmt: skip


@pytest.mark.parametrize("expr", CLEAN)
@pytest.mark.parametrize("after", [NOW, None])
def test_nothing_to_say(expr, after):
    assert lint(Cron(expr), ROME, after=after) == []


FOUND = [
    ("0 0 29 2 *", "rare-date", "day of month '29', month '2': some years have no such date; there are 97 of them in 400 years"),
    ("0 0 * 2 1#5", "rare-date", "month '2', day of week '1#5': some years have no such date; there are 15 of them in 400 years"),
    ("0 0 31 * *", "missing-day", "day of month '31': months without a 31st are left out; for the last day write 'L'"),
    ("0 0 30 1,2 *", "missing-day", "day of month '30': months without a 30th are left out"),
    ("0 0 1,31 2 *", "missing-day", "day of month '31': month '2' never has a 31st"),
    ("0 0 * * fri#5", "missing-day", "day of week 'fri#5': months without a fifth are left out; for the last write 'L5'"),
    ("0 0 31W 2 *", "nearest-weekday", "day of month '31w': in a month without a 31st it means the weekday nearest to the last"),
    ("0 0 1 * mon", "both-days", "day of month '1' and day of week 'mon' are both restricted: it runs on the days of either"),
    ("0 0 */2 * 1", "star-step-day", "runs on the days of either; Debian's cron takes day of month '*/2', which begins with *"),
    ("0 0 1 * */2", "star-step-day", "runs on the days of either; Debian's cron takes day of week '*/2', which begins with *"),
    ("*/45 * * * *", "uneven-step", "minute '*/45' means 0 and 45, and starts anew each hour: the last step is 15, not 45"),
    ("*/7 * * * *", "uneven-step", "minute '*/7' means 0, 7, 14 and so on to 56, and starts anew each hour: the last step is 4"),
    ("0 */5 * * *", "uneven-step", "hour '*/5' means 0, 5, 10, 15 and 20, and starts anew each day: the last step is 4, not 5"),
    ("50/15 * * * *", "uneven-step", "minute '50/15' means 50 alone, and starts anew each hour: the last step is 60, not 15"),
    ("1,*/7 * * * *", "uneven-step", "minute '*/7' means"),
    ("0 0 */2 * *", "uneven-step", "day of month '*/2' means 1, 3, 5 and so on to 31, and starts anew each month"),
    ("0 0 1 */5 *", "uneven-step", "month '*/5' means 1, 6 and 11, and starts anew each year: the last step is 2, not 5"),
    ("0 0 * * */2", "uneven-step", "day of week '*/2' means 0, 2, 4 and 6, and starts anew each week: the last step is 1, not 2"),
    ("*/7 0 9 * * *", "uneven-step", "second '*/7' means"),
    ("* * * * * *", "many-runs", "second '*': the first of six fields is the second, so it runs 86,400 times on each of its days"),
    ("*/5 * * * * *", "many-runs", "second '*/5': the first of six fields is the second, so it runs 17,280 times"),
    ("* 30 9 * * *", "many-runs", "so it runs 60 times on each of its days"),
    ("30 9 * * * *", "seconds-first", "second '30', minute '9', hour '*': the first of six fields is the second"),
    ("0 9 * * * *", "seconds-first", "second '0', minute '9', hour '*'"),
    ("30 9 * * 1 0", "seconds-first", "other schedulers read the minute first, and a second (croniter) or a year (Temporal) last"),
    ("5 * * * * *", "seconds-first", "second '5', minute '*', hour '*'"),
    ("30 2 * * *", "skipped-time", "hour '2' in Europe/Rome: 2026-03-29 02:30 does not exist, it runs at 03:00"),
    ("30 2 * * *", "repeated-time", "hour '2' in Europe/Rome: 2026-10-25 02:30 is shown twice, it runs the first time only"),
    ("*/20 2 * * *", "skipped-time", "hour '2' in Europe/Rome: 2026-03-29 02:00 does not exist, it is skipped"),
    ("*/20 2 * * *", "repeated-time", "hour '2' in Europe/Rome: 2026-10-25 02:00 is shown twice, it runs both times"),
    ("30 0-23 * * *", "skipped-time", "hour '0-23' in Europe/Rome: 2026-03-29 02:30 does not exist, it runs at 03:00"),
    ("* 2 * 3 L7", "never-fires", "expr '* 2 * 3 L7' never fires in Europe/Rome before the year 9998"),
]  # fmt: skip


@pytest.mark.parametrize(("expr", "rule", "text"), FOUND)
def test_findings(expr, rule, text):
    found = {each.rule: each.text for each in lint(Cron(expr), ROME, after=NOW)}
    assert text in found[rule]


@pytest.mark.parametrize(
    ("schedule", "rules"),
    [
        (Interval(999), ["short-interval"]),
        (Interval(1000), []),
        (OneShot("2026-03-29 02:30"), ["skipped-time"]),
        (OneShot("2026-03-29 03:00"), []),
        (OneShot("2026-10-25 02:30"), ["repeated-time"]),
        (OneShot("2026-10-25 02:30+01:00"), []),
        (OneShot("2025-10-26 02:30"), ["repeated-time", "in-the-past"]),
        (OneShot("2025-12-31T23:59:00Z"), []),
        (OneShot("2025-12-31T23:58:59Z"), ["in-the-past"]),
    ],
)
def test_intervals_and_one_shots(schedule, rules):
    assert [each.rule for each in lint(schedule, ROME, after=NOW)] == rules
    assert [each.rule for each in lint(schedule, ROME)] == [rule for rule in rules if rule != "in-the-past"]


def test_clock_changes_are_those_of_the_zone_and_of_the_years_to_come():
    cron = Cron("30 2 * * *")
    assert lint(cron) == lint(cron, "UTC") == lint(cron, "Asia/Tokyo", after=NOW) == []
    assert len(lint(cron, ROME)) == 2  # without a present: what the zone does in the long run
    before = datetime(2014, 1, 1, tzinfo=UTC)
    assert len(lint(cron, "Europe/Moscow", after=before)) == 0  # Moscow changed for good in October 2014, 02:00 to 01:00
    assert [each.rule for each in lint(Cron("30 1 * * *"), "Europe/Moscow", after=before)] == ["repeated-time"]
    assert lint(Cron("30 1 * * *"), "Europe/Moscow", after=NOW) == []


def test_in_the_long_run_a_zone_does_the_same_each_year():
    for zone in ZONES:
        offsets = [
            [datetime(year, month, 1, tzinfo=ZoneInfo(zone)).utcoffset() for month in range(1, 13)]
            for year in (2100, 2101, 2104, 2200)
        ]
        assert all(each == offsets[0] for each in offsets), zone


def test_the_rules_are_documented():
    named = set(re.findall(r"``([a-z]+-[a-z-]+)``", (getdoc(lint) or "").partition("Args:")[0]))
    seen = {rule for _, rule, _ in FOUND} | {"short-interval", "in-the-past"}
    assert named == seen


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("* * * * *",), "schedule must be OneShot, Interval or Cron"),
        ((Cron("* * * * *"), "Rome"), "timezone 'Rome' is not the name of an IANA time zone"),
        ((Interval(1), "Rome"), "timezone 'Rome'"),
        ((OneShot("2026-01-01 00:00"), "Rome"), "timezone 'Rome'"),
    ],
)
def test_wrong_arguments(args, message):
    with pytest.raises(InvalidSchedule, match=message):
        lint(*args)


@pytest.mark.parametrize("schedule", [Cron("* * * * *"), Interval(1), OneShot("2026-01-01 00:00")])
def test_the_present_must_be_an_instant(schedule):
    with pytest.raises(InvalidSchedule, match="after must be an aware datetime"):
        lint(schedule, after=datetime(2026, 1, 1))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(expressions, places)
def test_it_says_something_short_of_everything(expr, place):
    cron = parsed(expr)
    if cron is None:
        return
    for after in (None, datetime(place[1], 1, 1, tzinfo=UTC), datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        for each in lint(cron, place[0], after=after):
            assert re.fullmatch(r"[a-z]+(-[a-z]+)+", each.rule)
            assert each.text.isprintable()
            assert len(each.text) <= 500
