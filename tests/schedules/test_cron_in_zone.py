"""The instants of cron expressions across clock changes: by table, and compared with brute force."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from cronactors.instants import LATEST, to_millis
from cronactors.schedules.fire_times import count_moments, fire_times, latest_moment, next_moment
from cronactors.schedules.schedule import Cron
from tests import oracle
from tests.schedules.cron_strategies import changes, expressions, parsed, places

EXAMPLES = int(os.environ.get("CRONACTORS_EXAMPLES", "200"))
LOCAL = "%Y-%m-%d %H:%M:%S%z"


def walls(expr, zone, after, before):
    """The fire times between two local times, as local times with their offset."""
    rules = ZoneInfo(zone)
    start, end = (datetime.fromisoformat(text) for text in (after, before))
    start, end = (at if at.tzinfo else at.replace(tzinfo=rules) for at in (start, end))
    times = fire_times(Cron(expr), after=start, before=end, timezone=zone)
    return [at.astimezone(rules).strftime("%d %H:%M:%S %z") for at in times]


GAP = [
    # Rome, 29 March 2026: 02:00 becomes 03:00.
    ("30 2 * * *", "Europe/Rome", "2026-03-28", "2026-03-31", ["28 02:30:00 +0100", "29 03:00:00 +0200", "30 02:30:00 +0200"]),
    ("0 30 2 * * *", "Europe/Rome", "2026-03-28", "2026-03-31", ["28 02:30:00 +0100", "29 03:00:00 +0200", "30 02:30:00 +0200"]),
    ("0,20,40 2 * * *", "Europe/Rome", "2026-03-29", "2026-03-30", ["29 03:00:00 +0200"]),
    ("0 2,3 * * *", "Europe/Rome", "2026-03-29", "2026-03-30", ["29 03:00:00 +0200"]),
    ("0 2 * * *", "Europe/Rome", "2026-03-29", "2026-03-30", ["29 03:00:00 +0200"]),
    ("0 1-4 * * *", "Europe/Rome", "2026-03-29", "2026-03-30", ["29 01:00:00 +0100", "29 03:00:00 +0200", "29 04:00:00 +0200"]),
    ("*/20 2 * * *", "Europe/Rome", "2026-03-29", "2026-03-30", []),
    ("*/30 1-3 * * *", "Europe/Rome", "2026-03-29", "2026-03-30",
     ["29 01:00:00 +0100", "29 01:30:00 +0100", "29 03:00:00 +0200", "29 03:30:00 +0200"]),
    ("0 * * * *", "Europe/Rome", "2026-03-29 00:30", "2026-03-29 04:30",
     ["29 01:00:00 +0100", "29 03:00:00 +0200", "29 04:00:00 +0200"]),
    ("* 30 2 * * *", "Europe/Rome", "2026-03-29", "2026-03-30", []),
    # 0-23 is not *: hours that are written out are times of day.
    ("30 0-23 * * *", "Europe/Rome", "2026-03-29 01:00", "2026-03-29 04:00",
     ["29 01:30:00 +0100", "29 03:00:00 +0200", "29 03:30:00 +0200"]),
    # Lord Howe, 4 October 2026: 02:00 becomes 02:30.
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", "2026-10-05", ["04 02:30:00 +1100"]),
    ("15,45 2 * * *", "Australia/Lord_Howe", "2026-10-04", "2026-10-05", ["04 02:30:00 +1100", "04 02:45:00 +1100"]),
    ("*/15 2 * * *", "Australia/Lord_Howe", "2026-10-04", "2026-10-05", ["04 02:30:00 +1100", "04 02:45:00 +1100"]),
    # Apia: 30 December 2011 does not exist.
    ("0 9 * * *", "Pacific/Apia", "2011-12-29", "2012-01-01", ["29 09:00:00 -1000", "31 00:00:00 +1400", "31 09:00:00 +1400"]),
    ("0 9,17 * * 5", "Pacific/Apia", "2011-12-29", "2012-01-01", ["31 00:00:00 +1400"]),
    ("0 */12 * * *", "Pacific/Apia", "2011-12-29 06:00", "2012-01-01",
     ["29 12:00:00 -1000", "31 00:00:00 +1400", "31 12:00:00 +1400"]),
    ("* * 30 12 *", "Pacific/Apia", "2011-12-01", "2012-02-01", []),
    # Troll goes forward by two hours, 01:00 to 03:00.
    ("30 1,2 * * *", "Antarctica/Troll", "2026-03-29", "2026-03-30", ["29 03:00:00 +0200"]),
    # Cairo, 24 April 2026: midnight does not exist.
    ("0 0 * * *", "Africa/Cairo", "2026-04-23 12:00", "2026-04-25 12:00", ["24 01:00:00 +0300", "25 00:00:00 +0300"]),
    ("@daily", "Africa/Cairo", "2026-04-23 12:00", "2026-04-24 12:00", ["24 01:00:00 +0300"]),
    ("@hourly", "Africa/Cairo", "2026-04-23 22:30", "2026-04-24 02:30",
     ["23 23:00:00 +0200", "24 01:00:00 +0300", "24 02:00:00 +0300"]),
    # Caracas, 1 May 2016: half an hour forward for good, no summer time.
    ("45 2 * * *", "America/Caracas", "2016-05-01", "2016-05-03", ["01 03:00:00 -0400", "02 02:45:00 -0400"]),
]  # fmt: skip

FOLD = [
    # Rome, 25 October 2026: 03:00 becomes 02:00.
    ("30 2 * * *", "Europe/Rome", "2026-10-25", "2026-10-27", ["25 02:30:00 +0200", "26 02:30:00 +0100"]),
    ("0 2,3 * * *", "Europe/Rome", "2026-10-25", "2026-10-26", ["25 02:00:00 +0200", "25 03:00:00 +0100"]),
    ("0 * * * *", "Europe/Rome", "2026-10-25 00:30", "2026-10-25 04:00",
     ["25 01:00:00 +0200", "25 02:00:00 +0200", "25 02:00:00 +0100", "25 03:00:00 +0100"]),
    ("*/30 2 * * *", "Europe/Rome", "2026-10-25", "2026-10-26",
     ["25 02:00:00 +0200", "25 02:30:00 +0200", "25 02:00:00 +0100", "25 02:30:00 +0100"]),
    # From an instant within the second showing.
    ("30 2 * * *", "Europe/Rome", "2026-10-25T02:10:00+01:00", "2026-10-27", ["26 02:30:00 +0100"]),
    ("*/30 * * * *", "Europe/Rome", "2026-10-25T02:10:00+01:00", "2026-10-25T03:10:00+01:00",
     ["25 02:30:00 +0100", "25 03:00:00 +0100"]),
    # A rhythm runs in both showings.
    ("*/30 45 2 25 10 *", "Europe/Rome", "2026-10-25", "2026-10-26",
     ["25 02:45:00 +0200", "25 02:45:30 +0200", "25 02:45:00 +0100", "25 02:45:30 +0100"]),
    # Troll goes back by two hours, 03:00 to 01:00; Vostok went by seven, 00:00 to 17:00 of the day before.
    ("30 1,2 * * *", "Antarctica/Troll", "2026-10-25", "2026-10-26", ["25 01:30:00 +0200", "25 02:30:00 +0200"]),
    ("0 18,23 31 1 *", "Antarctica/Vostok", "1994-01-31", "1994-02-02", ["31 18:00:00 +0700", "31 23:00:00 +0700"]),
    # Lord Howe, 5 April 2026: 02:00 becomes 01:30.
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", "2026-04-06", ["05 01:45:00 +1100"]),
    ("*/45 1 * * *", "Australia/Lord_Howe", "2026-04-05", "2026-04-06",
     ["05 01:00:00 +1100", "05 01:45:00 +1100", "05 01:45:00 +1030"]),
    # Dublin, whose winter time is the one that Irish law calls the change.
    ("30 1 * * *", "Europe/Dublin", "2026-10-25", "2026-10-27", ["25 01:30:00 +0100", "26 01:30:00 +0000"]),
    ("30 1 * * *", "Europe/Dublin", "2026-03-29", "2026-03-30", ["29 02:00:00 +0100"]),
    # Casablanca goes back for Ramadan, 15 February 2026, 03:00 to 02:00, and forward again on 22 March.
    ("30 2 * * *", "Africa/Casablanca", "2026-02-15", "2026-02-17", ["15 02:30:00 +0100", "16 02:30:00 +0000"]),
    ("30 2 * * *", "Africa/Casablanca", "2026-03-22", "2026-03-23", ["22 03:00:00 +0100"]),
    # Havana, 3 November 2024: 01:00 becomes midnight again.
    ("0 0 * * *", "America/Havana", "2024-11-02 12:00", "2024-11-04 12:00", ["03 00:00:00 -0400", "04 00:00:00 -0500"]),
    # Cairo, 30 October 2026: midnight becomes 23:00 of the day before.
    ("30 23 29 * *", "Africa/Cairo", "2026-10-28", "2026-11-02", ["29 23:30:00 +0300"]),
    ("*/30 23 29 * *", "Africa/Cairo", "2026-10-28", "2026-11-02",
     ["29 23:00:00 +0300", "29 23:30:00 +0300", "29 23:00:00 +0200", "29 23:30:00 +0200"]),
]  # fmt: skip


@pytest.mark.parametrize(("expr", "zone", "after", "before", "expected"), GAP + FOLD)
def test_fire_times_around_clock_changes(expr, zone, after, before, expected):
    # The window includes its first instant.
    start = datetime.fromisoformat(after)
    if start.tzinfo is None:
        start = start.replace(tzinfo=ZoneInfo(zone))
    start = datetime.fromtimestamp(start.timestamp() - 1, UTC)
    assert walls(expr, zone, start.isoformat(), before) == expected

    # From every instant between, the three functions agree with that.
    cron, end = Cron(expr), datetime.fromisoformat(before)
    begin, until = to_millis(start), to_millis(end if end.tzinfo else end.replace(tzinfo=ZoneInfo(zone)))
    times = [
        to_millis(at) for at in fire_times(cron, after=start, before=datetime.fromtimestamp(until / 1000, UTC), timezone=zone)
    ]
    for instant in {*range(begin, until, 600_000), *(at + by for at in times for by in (-1, 0, 1))}:
        past, later = [at for at in times if at <= instant], [at for at in times if at > instant]
        following = next_moment(cron, after=instant, zone=zone, anchor=0)
        latest = latest_moment(cron, until=instant, zone=zone, anchor=0)
        assert following == later[0] if later else following is None or following >= until
        assert latest == past[-1] if past else latest is None or latest <= begin
        if past:
            assert count_moments(cron, first=times[0], until=instant, zone=zone, anchor=0) == len(past)


def test_a_rhythm_whose_times_are_always_skipped_never_fires():
    # Italy has skipped this hour each year since 1981.
    cron = Cron("* 2 * 3 L7")
    after = to_millis(datetime(2026, 1, 1, tzinfo=UTC))
    assert next_moment(cron, after=after, zone="Europe/Rome", anchor=0) is None
    assert next_moment(cron, after=after, zone="UTC", anchor=0) is not None
    latest = latest_moment(cron, until=after, zone="Europe/Rome", anchor=0)
    assert latest is not None
    assert next_moment(cron, after=latest, zone="Europe/Rome", anchor=0) is None


@pytest.mark.parametrize("expr", ["* * * * * *", "0 9 * * *", "*/5 * * * *", "0 0 29 2 *", "0 0 * 2 5#5", "59 59 23 31 12 *"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Europe/Rome"])
def test_nothing_fires_before_1970_or_after_9997(expr, zone):
    cron = Cron(expr)
    last = latest_moment(cron, until=LATEST + 10**15, zone=zone, anchor=0)
    assert last is not None
    assert last < LATEST
    assert next_moment(cron, after=last, zone=zone, anchor=0) is None
    assert next_moment(cron, after=last - 1, zone=zone, anchor=0) == last
    first = next_moment(cron, after=-(10**15), zone=zone, anchor=0)
    assert first is not None
    assert first >= 0
    assert latest_moment(cron, until=first, zone=zone, anchor=0) == first
    assert latest_moment(cron, until=first - 1, zone=zone, anchor=0) is None
    assert count_moments(cron, first=first, until=first, zone=zone, anchor=0) == 1


def check_window(expr, zone, start, end, extra):
    """Compare the three functions with brute force, for ``start < instant <= end``; all times are multiples of 15 s."""
    cron = Cron(expr)
    step = 15 if len(expr.split()) == 6 else 60
    aligned = all(change % step == 0 for change in changes(zone, datetime.fromtimestamp(start, UTC).year))
    truth = [at * 1000 for at in oracle.fire_instants(expr, zone, start, end, step if aligned else 15)]
    begin, end = start * 1000, end * 1000

    found = []
    at = next_moment(cron, after=begin, zone=zone, anchor=0)
    while at is not None and at <= end:
        found.append(at)
        at = next_moment(cron, after=at, zone=zone, anchor=0)
    assert found == truth
    assert all(one < other for one, other in pairwise(found))

    instants = {begin, end, *extra, *(at + by for at in truth[:40] + truth[-40:] for by in (-1000, -1, 0, 1, 999))}
    for instant in (each for each in instants if begin <= each <= end):
        later = [at for at in truth if at > instant]
        past = [at for at in truth if at <= instant]
        following = next_moment(cron, after=instant, zone=zone, anchor=0)
        assert following == later[0] if later else following is None or following > end
        latest = latest_moment(cron, until=instant, zone=zone, anchor=0)
        assert latest == past[-1] if past else latest is None or latest <= begin
        if past:
            assert count_moments(cron, first=past[0], until=instant, zone=zone, anchor=0, cap=10**6) == len(past)
            assert count_moments(cron, first=past[0], until=instant, zone=zone, anchor=0, cap=7) == min(7, len(past))
        if following is not None:
            assert latest_moment(cron, until=following, zone=zone, anchor=0) == following


@settings(max_examples=EXAMPLES, deadline=None, derandomize="CRONACTORS_EXAMPLES" not in os.environ,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])  # fmt: skip
@given(expressions, places, st.integers(0, 7), st.integers(-36, 12), st.lists(st.integers(0, 86_400_000), max_size=8))
@example("30 2 * * *", ("Europe/Rome", 2026), 0, -12, [])
@example("*/30 * * * *", ("Pacific/Apia", 2011), 1, -12, [])
def test_moments_near_clock_changes_are_those_of_brute_force(expr, place, which, hours, extra):
    zone, year = place
    near = changes(zone, year) or [int(datetime(year, 7, 1, tzinfo=UTC).timestamp())]
    middle = near[which % len(near)]
    start = (middle + hours * 3600) // 3600 * 3600
    if parsed(expr) is None:
        return
    near_change = {middle * 1000 + by for by in (-1, 0, 1, 1_800_000, 3_600_000)}
    check_window(expr, zone, start, start + 36 * 3600, near_change | {start * 1000 + by for by in extra})


@settings(max_examples=EXAMPLES, deadline=None, derandomize="CRONACTORS_EXAMPLES" not in os.environ)
@given(expressions, places, st.integers(0, 366 * 86_400_000))
def test_next_latest_and_count_agree_with_each_other(expr, place, offset):
    zone, year = place
    cron = parsed(expr)
    if cron is None:
        return
    after = to_millis(datetime(year, 1, 1, tzinfo=UTC)) + offset
    chain = [after]
    for _ in range(12):
        following = next_moment(cron, after=chain[-1], zone=zone, anchor=0)
        if following is None:
            break
        assert following > chain[-1]
        # The result is the same from everywhere between.
        for between in ((chain[-1] + following) // 2, following - 1):
            assert next_moment(cron, after=between, zone=zone, anchor=0) == following
            latest = latest_moment(cron, until=between, zone=zone, anchor=0)
            assert latest == chain[-1] if len(chain) > 1 else latest is None or latest <= after
        assert latest_moment(cron, until=following, zone=zone, anchor=0) == following
        chain.append(following)
    for index, at in enumerate(chain[1:], 1):
        assert count_moments(cron, first=chain[1], until=at, zone=zone, anchor=0) == index
