"""The findings of `lint`, and ordinary schedules without findings."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from inspect import getdoc
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings

from cronactors.errors import InvalidSchedule
from cronactors.instants import to_millis
from cronactors.schedules.fire_times import fire_times, first_moment
from cronactors.schedules.lint import lint
from cronactors.schedules.schedule import Cron, Interval, OneShot
from tests.oracle import Expression
from tests.schedules.cron_strategies import ZONES, changes, expressions, parsed, places

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROME = "Europe/Rome"

CLEAN = [
    "0 9 * * *", "0 0 9 * * *", "*/15 * * * *", "* * * * *", "@daily", "@hourly", "@yearly", "0 0 * * * *", "0 */5 * * * *",
    "0 30 * * * *", "0 * * * * *", "0 */6 * * *", "10/20 * * * *", "*/60 * * * *", "*/1 * * * *", "8-18/3 12 * * *", "0 9 L * *",
    "0 9 15W * *", "0 9 * * L5", "0 9 * * fri#2", "0 9 1-7 * *", "0 9 31 1,12 *", "0 9 29 1,3 *", "0 9 * */3 *", "0 9 1,15 * ?",
    "0 9 31W 1 *", "0 9 * * fri-mon", "0 9 */31 * *",
    # A rhythm of all hours, however they are written.
    "*/15 0-23 * * *", "*/15 */1 * * *", "0 */15 0-23 * * *",
    # Quartz has seconds first too. Read with the minute first these have an hour above 23, or a ? as second or year.
    "0 0/5 * * * ?", "0 0 9 * * ?", "30 5 1 * * ?", "0 0/5 * * * *", "0 12/20 * * * *", "00 0 9 * * *", "0 00 * * * *",
    # Names of days, numbers that Quartz does not have, and numbers without a `?`.
    "0 15 10 ? * MON-FRI", "0 15 10 ? * fri#3", "0 15 10 ? * 0", "0 15 10 ? * L5", "0 15 10 ? * *", "0 15 10 1 * ?", "0 15 10 * * 2-6",
    "15 10 ? * 2-6",
    # No month is left out, and each day exists in some month.
    "0 9 31,L * *", "0 9 29,L 2 *", "0 9 * * 5#5,L5", "0 9 31,1 * *", "0 9 28-31 * *", "0 9 1-31 4 *",
    "0 9 31-31 1,3 *",
    # The steps divide their field, or the next period has no run, or the range was written out.
    "*/40 9 * * *", "*/40 9,17 * * *", "0 */5 1 * *", "0 */5 1,15 * *", "0 9 */2 1 *", "0 9 */2 1,7 *", "*/40,20 * * * *",
    "0-59/20 * * * *", "50-59/15 * * * *", "0 9 * * 0-6/7", "*/45 0,23 1 * *",
    # Every minute, for several hours or days in a row.
    "* 9-17 * * 1-5", "* * * * 1-5", "* * * 1 *", "0-59 9 * * *", "0 * 9-17 * * *",
]  # fmt: skip


@pytest.mark.parametrize("expr", CLEAN)
@pytest.mark.parametrize("after", [NOW, None])
def test_ordinary_expressions_have_no_findings(expr, after):
    assert lint(Cron(expr), ROME, after=after) == []


FOUND = [
    ("0 0 29 2 *", "rare-date", "day of month '29', month '2': some years have no such date; it occurs 97 times in 400 years"),
    ("0 0 * 2 1#5", "rare-date", "month '2', day of week '1#5': some years have no such date; it occurs 15 times in 400 years"),
    ("0 0 31 * *", "missing-day", "day of month '31': months without a 31st are left out; for the last day write 'L'"),
    ("0 0 30 1,2 *", "missing-day", "day of month '30': months without a 30th are left out"),
    ("0 0 1,31 2 *", "missing-day", "day of month '31': month '2' never has a 31st"),
    ("0 0 * * fri#5", "missing-day", "day of week 'fri#5': months without a fifth are left out; for the last write 'L5'"),
    ("0 0 30-31 4 *", "missing-day", "day of month '30-31': month '4' never has a 31st"),
    ("0 0 28-31 2 *", "missing-day", "day of month '28-31': month '2' never has a 30th"),
    ("0 0 31 4 MON", "missing-day", "day of month '31': month '4' never has a 31st"),
    ("0 0 31-31 * *", "missing-day", "day of month '31-31': months without a 31st are left out; for the last day write 'L'"),
    ("0 0 29-31 * *", "missing-day", "day of month '29-31': months without a 29th are left out; for the last day write 'L'"),
    ("0 0 31,30 * *", "missing-day", "day of month '31,30': months without a 30th are left out; for the last day write 'L'"),
    ("0 0 * * Fri#5,1#5", "missing-day",
     "day of week 'Fri#5,1#5': months without a fifth are left out; for the last write 'L5,L1'"),
    ("0 0 31 * 5#5", "missing-day", "day of month '31', day of week '5#5': months that have neither are left out"),
    ("0 0 31W 2 *", "nearest-weekday", "day of month '31W': in a month without a 31st it means the weekday nearest to the last"),
    ("0 0 1 * mon", "both-days", "day of month '1' and day of week 'mon' are both restricted: it runs on the days of either"),
    ("0 0 */2 * 1", "star-step-day", "runs on the days of either; Debian's cron takes day of month '*/2', which begins with *, as"),
    ("0 0 1 * */2", "star-step-day", "runs on the days of either; Debian's cron takes day of week '*/2', which begins with *, as"),
    ("*/45 * * * *", "uneven-step", "minute '*/45' means 0 and 45, and starts anew each hour: the last step is 15, not 45"),
    ("*/7 * * * *", "uneven-step", "minute '*/7' means 0, 7, 14 and so on to 56, and starts anew each hour: the last step is 4"),
    ("0 */5 * * *", "uneven-step", "hour '*/5' means 0, 5, 10, 15 and 20, and starts anew each day: the last step is 4, not 5"),
    ("50/15 * * * *", "uneven-step", "minute '50/15' means 50 alone, and starts anew each hour: the last step is 60, not 15"),
    ("1,*/7 * * * *", "uneven-step", "minute '*/7' means"),
    ("0 0 */2 * *", "uneven-step", "day of month '*/2' means 1, 3, 5 and so on to 31, and starts anew each month"),
    ("0 0 1 */5 *", "uneven-step", "month '*/5' means 1, 6 and 11, and starts anew each year: the last step is 2, not 5"),
    ("0 0 * * */2", "uneven-step", "day of week '*/2' means 0, 2, 4 and 6, and starts anew each week: the last step is 1, not 2"),
    ("*/7 * 9 * * *", "uneven-step", "second '*/7' means"),
    ("*/45 9,10 * * *", "uneven-step", "minute '*/45' means 0 and 45, and starts anew each hour: the last step is 15, not 45"),
    ("*/45 23,0 * * *", "uneven-step", "the last step is 15, not 45"),
    ("*/45 59,0 23,0 1,2 * *", "uneven-step", "second '*/45' means 0 and 45, and starts anew each minute: the last step is 15"),
    ("0 */5 31,1 * *", "uneven-step", "hour '*/5' means"),
    ("0 0 */2 12,1 *", "uneven-step", "day of month '*/2' means"),
    ("50/15 9 * * *", "uneven-step", "minute '50/15' means 50 alone"),
    ("0-59/45 * * * *", "uneven-step", "minute '0-59/45' means 0 and 45, and starts anew each hour: the last step is 15, not 45"),
    ("0 0 1-31/2 * *", "uneven-step", "day of month '1-31/2' means 1, 3, 5 and so on to 31, and starts anew each month"),
    ("0 0 * * 1-7/2", "uneven-step", "day of week '1-7/2' means 1, 3, 5 and 0, and starts anew each week: the last step is 1"),
    ("0 0 * * sat-fri/2", "uneven-step", "day of week 'sat-fri/2' means 6, 1, 3 and 5, and starts anew each week: the last step is 1"),
    ("* * * * * *", "many-runs", "second '*': the first of six fields is the second, so it runs 86,400 times on each of its days"),
    ("*/5 * * * * *", "many-runs", "second '*/5': the first of six fields is the second, so it runs 17,280 times"),
    ("* 30 9 * * *", "many-runs", "so it runs 60 times on each of its days"),
    ("* 9 * * *", "many-runs", "minute '*', hour '9': it runs every minute of its hours, 60 times on each of its days, from 09:00 on"),
    ("* */2 * * *", "many-runs", "minute '*', hour '*/2': it runs every minute of its hours, 720 times on each of its days"),
    ("0 * 9 * * *", "many-runs", "minute '*', hour '9': it runs every minute"),
    ("* * 9 * *", "many-runs", "minute '*', hour '*': it runs every minute of its hours, 1,440 times on each of its days, from 00:00"),
    ("* * * * MON", "many-runs", "1,440 times on each of its days"),
    ("30 9 * * * *", "seconds-first", "second '30', minute '9', hour '*': the first of six fields is the second"),
    ("0 9 * * * *", "seconds-first", "second '0', minute '9', hour '*'"),
    ("30 9 * * 1 0", "seconds-first", "other schedulers read the minute first, and a second (croniter) or a year (Temporal) last"),
    ("5 * * * * *", "seconds-first", "second '5', minute '*', hour '*'"),
    ("0 15 10 ? * 2-6", "quartz-weekday",
     "day of week '2-6' with '?' as day of month: weekdays count from Sunday = 0 here and from Sunday = 1 in Quartz; if it comes from there write"),
    ("0 15 10 ? * 2-6", "quartz-weekday", "write 'mon-fri'"),
    ("0 15 10 ? * 7", "quartz-weekday", "write 'sat'"),
    ("0 15 10 ? * 1,WED,5-6/2", "quartz-weekday", "write 'sun,wed,thu-fri/2'"),
    ("0 15 10 ? * 6#3", "quartz-weekday", "write 'fri#3'"),
    ("0 15 10 ? * 1/3", "quartz-weekday", "write 'sun/3'"),
    ("30 2 * * *", "skipped-time", "hour '2' in Europe/Rome: 2026-03-29 02:30 does not exist, it runs at 03:00"),
    ("30 2 * * *", "repeated-time", "hour '2' in Europe/Rome: 2026-10-25 02:30 is shown twice, it runs the first time only"),
    ("*/20 2 * * *", "skipped-time", "hour '2' in Europe/Rome: 2026-03-29 02:00 does not exist, it is skipped"),
    ("*/20 2 * * *", "repeated-time", "hour '2' in Europe/Rome: 2026-10-25 02:00 is shown twice, it runs both times"),
    ("30 0-23 * * *", "skipped-time", "hour '0-23' in Europe/Rome: 2026-03-29 02:30 does not exist, it runs at 03:00"),
    ("30 */2 * * *", "skipped-time", "hour '*/2' in Europe/Rome: 2026-03-29 02:30 does not exist, it is skipped"),
    ("30 */2 * * *", "repeated-time", "hour '*/2' in Europe/Rome: 2026-10-25 02:30 is shown twice, it runs both times"),
    ("* 2 * 3 L7", "never-fires", "expr '* 2 * 3 L7' never fires in Europe/Rome before the year 9998"),
]  # fmt: skip


@pytest.mark.parametrize(("expr", "rule", "text"), FOUND)
def test_findings_in_expressions(expr, rule, text):
    found = [each.text for each in lint(Cron(expr), ROME, after=NOW) if each.rule == rule]
    assert any(text in each for each in found), found
    assert len(found) == 1 or rule in ("missing-day", "uneven-step")


@pytest.mark.parametrize(
    ("expr", "rules"),
    [
        ("0 0 31 * mon", ["both-days"]),
        ("*/7,*/7 * * * *", ["uneven-step"]),
        ("0 0 1,31,30 2 *", ["missing-day", "missing-day"]),
        ("0 9,10 9 * * ?", []),
        ("0 9 20/10 * *", ["uneven-step"]),
        ("*/7 0 9 * * *", ["many-runs"]),
    ],
)
def test_each_finding_is_reported_once_and_no_other_with_it(expr, rules):
    assert [each.rule for each in lint(Cron(expr), ROME, after=NOW)] == rules


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
        (OneShot("9997-12-31T23:59:59Z"), []),
        (OneShot("9997-12-31T23:59-12:00"), ["never-fires"]),
        (OneShot("2025-12-31T23:58:59Z"), ["in-the-past"]),
    ],
)
def test_findings_in_intervals_and_one_shots(schedule, rules):
    assert [each.rule for each in lint(schedule, ROME, after=NOW)] == rules
    assert [each.rule for each in lint(schedule, ROME)] == [rule for rule in rules if rule != "in-the-past"]


def test_a_one_shot_beyond_the_year_9997_in_its_zone_never_fires():
    schedule = OneShot("9997-12-31 23:59")
    assert lint(schedule, "UTC") == []
    assert [each.text for each in lint(schedule, "Etc/GMT+12")] == [
        "at '9997-12-31 23:59' never fires in Etc/GMT+12 before the year 9998"
    ]
    with pytest.raises(InvalidSchedule, match="at '9997-12-31 23:59' never fires in Etc/GMT\\+12 before the year 9998"):
        first_moment(schedule, now=to_millis(NOW), zone="Etc/GMT+12")


def test_clock_changes_of_the_next_five_years_in_the_zone_are_reported():
    cron = Cron("30 2 * * *")
    assert lint(cron) == lint(cron, "UTC") == lint(cron, "Asia/Tokyo", after=NOW) == []
    before = datetime(2014, 1, 1, tzinfo=UTC)
    assert len(lint(cron, "Europe/Moscow", after=before)) == 0  # Moscow changed for good in October 2014, 02:00 to 01:00
    assert [each.rule for each in lint(Cron("30 1 * * *"), "Europe/Moscow", after=before)] == ["repeated-time"]
    assert lint(Cron("30 1 * * *"), "Europe/Moscow", after=NOW) == []


def test_without_a_present_clock_changes_of_2026_to_2104_are_reported():
    # Also those that are listed one by one: Morocco's follow the moon, and its list ends.
    for zone in (ROME, "Africa/Casablanca"):
        assert lint(Cron("30 2 * * *"), zone) == lint(Cron("30 2 * * *"), zone, after=NOW)
        assert {each.rule for each in lint(Cron("30 2 * * *"), zone)} == {"skipped-time", "repeated-time"}
    # 27 March is the last Sunday of March in 2033, and in no year from 2026 to 2032.
    cron = Cron("30 2 27 3 *")
    assert lint(cron, ROME, after=NOW) == []
    assert [each.text for each in lint(cron, ROME)] == [
        "hour '2' in Europe/Rome: 2033-03-27 02:30 does not exist, it runs at 03:00"
    ]


HOURS = ["*", "*/24", "*/12", "*/8", "*/5", "*/3", "*/2", "*/1", "0-23", "0-23/2", "2", "1,2", "0", "23", "*,2", "1-3", "12"]
MINUTES = ["0", "30", "*", "*/15", "*/20", "15,45", "0-59/15"]
DATES = ["* * *", "* 3 *", "29 * *", "* * 0", "* 4,10 5"]


@pytest.mark.parametrize(
    "zone", [ROME, "Africa/Cairo", "Australia/Lord_Howe", "Antarctica/Troll", "Africa/Casablanca", "America/Havana", "UTC"]
)
def test_skipped_and_repeated_times_are_those_of_brute_force(zone):
    rules = ZoneInfo(zone)
    found = [change for year in range(2026, 2031) for change in changes(zone, year)]
    touched: list[tuple[str, list[datetime]]] = []
    for change in found:
        before, after = (datetime.fromtimestamp(by, rules).replace(tzinfo=None) for by in (change - 1, change))
        low, high = sorted((before + timedelta(seconds=1), after))
        minutes = [low + timedelta(minutes=n) for n in range(int((high - low).total_seconds()) // 60)]
        touched.append(("skipped-time" if after > before else "repeated-time", minutes))
    for hour, minute, dates in product(HOURS, MINUTES, DATES):
        expression = Expression(f"{minute} {hour} {dates}")
        follows = expression.rhythm and len(expression.hours) == 24
        expected = {rule for rule, minutes in touched if not follows and any(map(expression.at, minutes))}
        reported = {each.rule for each in lint(Cron(f"{minute} {hour} {dates}"), zone, after=NOW)}
        assert reported & {"skipped-time", "repeated-time"} == expected, (minute, hour, dates)


@pytest.mark.parametrize("dates", ["* * *", "1 * *", "1,2 * *", "31,1 * *"])
@pytest.mark.parametrize("hours", ["*", "9", "9,10", "0,23", "*/2", "8,12,13"])
def test_an_uneven_last_step_is_reported_if_it_lies_between_two_runs(hours, dates):
    for step in range(2, 60):
        cron = Cron(f"*/{step} {hours} {dates}")
        reported = [each.text for each in lint(cron, after=NOW) if each.rule == "uneven-step" and each.text.startswith("minute")]
        times = list(fire_times(cron, after=NOW, before=NOW + timedelta(days=33)))
        last = 60 - (59 // step) * step
        shown = any(after - before == timedelta(minutes=last) for before, after in pairwise(times))
        assert bool(reported) == (shown and last != step), step
        assert not reported or reported[0].endswith(f": the last step is {last}, not {step}")


MONTH_DAYS = ["*", "31", "30", "29", "28", "29-31", "31,30", "28,31", "31,L", "31W", "1,31", "*/7", "30/7", "15W,31"]
MONTHS = ["2,4,5", "2", "1", "1,3", "2,3", "4,5", "4"]
WEEKDAYS = ["*", "1", "5#5", "5#5,L5", "5#5,1#5", "5#4,5#5", "*/2", "0-6"]


@pytest.mark.parametrize("months", MONTHS)
def test_months_without_a_matching_day_are_those_of_brute_force(months):
    for month_days, weekdays in product(MONTH_DAYS, WEEKDAYS):
        cron, oracle = parsed(f"0 0 {month_days} {months} {weekdays}"), Expression(f"0 0 {month_days} {months} {weekdays}")
        if cron is None:
            continue
        by_month = [
            (year, any(oracle.on(date(year, month, day)) for day in range(1, monthrange(year, month)[1] + 1)))
            for year in range(2000, 2028)
            for month in oracle.months
        ]
        all_years = len({year for year, hit in by_month if hit}) == 28
        left_out = all_years and not all(hit for _, hit in by_month)
        reported = [
            each for each in lint(cron, after=NOW) if each.rule in ("missing-day", "rare-date") and "never" not in each.text
        ]
        assert [each.rule for each in reported] == ["missing-day"] * left_out + ["rare-date"] * (not all_years), (
            month_days,
            weekdays,
        )


def test_from_2100_on_every_zone_is_the_same_each_year():
    for zone in ZONES:
        offsets = [
            [datetime(year, month, 1, tzinfo=ZoneInfo(zone)).utcoffset() for month in range(1, 13)]
            for year in (2100, 2101, 2104, 2200)
        ]
        assert all(each == offsets[0] for each in offsets), zone


def test_the_docstring_names_every_rule():
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
def test_a_present_without_a_zone_is_refused(schedule):
    with pytest.raises(InvalidSchedule, match="after must be an aware datetime"):
        lint(schedule, after=datetime(2026, 1, 1))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(expressions, places)
def test_every_finding_has_a_rule_and_a_short_text(expr, place):
    cron = parsed(expr)
    if cron is None:
        return
    for after in (None, datetime(place[1], 1, 1, tzinfo=UTC), datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        for each in lint(cron, place[0], after=after):
            assert re.fullmatch(r"[a-z]+(-[a-z]+)+", each.rule)
            assert each.text.isprintable()
            assert len(each.text) <= 500
