"""Previews: the moments are the fire times, and the notes describe clock changes, by table and by the standard library."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from cronactors.errors import InvalidSchedule
from cronactors.schedules.fire_times import fire_times
from cronactors.schedules.preview import preview
from cronactors.schedules.schedule import Cron, Interval, OneShot
from tests import oracle
from tests.schedules.cron_strategies import changes, expressions, parsed, places

EXAMPLES = int(os.environ.get("CRONACTORS_EXAMPLES", "200"))
ROME = "Europe/Rome"


def at(text, zone):
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))


# Expression, zone, start; then the local time of the next moment, and its note.
NOTES = [
    # Rome, 29 March 2026: 02:00 becomes 03:00.
    ("30 2 * * *", ROME, "2026-03-28", "28 02:30:00+01:00", None),
    ("30 2 * * *", ROME, "2026-03-29", "29 03:00:00+02:00", "02:30 does not exist: runs at 03:00"),
    ("0 30 2 * * *", ROME, "2026-03-29", "29 03:00:00+02:00", "02:30 does not exist: runs at 03:00"),
    ("15 30 2 * * *", ROME, "2026-03-29", "29 03:00:00+02:00", "02:30:15 does not exist: runs at 03:00"),
    ("0 2,3 * * *", ROME, "2026-03-29", "29 03:00:00+02:00", "02:00 does not exist: runs together with 03:00"),
    ("0,20,40 2 * * *", ROME, "2026-03-29", "29 03:00:00+02:00", "02:00 to 02:40 (3 times) do not exist: run once at 03:00"),
    ("0,20 2,3 * * *", ROME, "2026-03-29", "29 03:00:00+02:00",
     "02:00 to 02:20 (2 times) do not exist: run once together with 03:00"),
    ("0 3 * * *", ROME, "2026-03-29", "29 03:00:00+02:00", None),
    ("*/30 * * * *", ROME, "2026-03-29T01:30", "29 03:00:00+02:00", "02:00 to 03:00 does not exist: skipped"),
    ("*/30 * * * *", ROME, "2026-03-29T03:00", "29 03:30:00+02:00", None),
    ("*/20 2 * * *", ROME, "2026-03-29", "30 02:00:00+02:00", "2026-03-29 02:00 to 03:00 does not exist: skipped"),
    # Times that were skipped before the start are not mentioned.
    ("*/20 2 * * *", ROME, "2026-03-29T12:00", "30 02:00:00+02:00", None),
    ("*/20 4 * * *", ROME, "2026-03-28T12:00", "29 04:00:00+02:00", None),
    # The skipped time lies a year before the next moment.
    ("* 2 31 3 *", ROME, "2024-03-31", "31 02:00:00+02:00", "2024-03-31 02:00 to 03:00 does not exist: skipped"),
    # Rome, 25 October 2026: 03:00 becomes 02:00.
    ("30 2 * * *", ROME, "2026-10-25", "25 02:30:00+02:00", "02:30 is shown twice: runs the first time only"),
    ("30 2 * * *", ROME, "2026-10-25T02:30", "26 02:30:00+01:00", None),
    ("0 3 * * *", ROME, "2026-10-25", "25 03:00:00+01:00", None),
    ("0 2 * * *", ROME, "2026-10-25", "25 02:00:00+02:00", "02:00 is shown twice: runs the first time only"),
    ("*/30 * * * *", ROME, "2026-10-25T01:30", "25 02:00:00+02:00", "02:00 is shown twice: runs both times, this is the first"),
    ("*/30 * * * *", ROME, "2026-10-25T02:30+02:00", "25 02:00:00+01:00",
     "02:00 is shown twice: runs both times, this is the second"),
    ("*/30 * * * *", ROME, "2026-10-25T02:30+01:00", "25 03:00:00+01:00", None),
    # Gaps of a day, over midnight, of half an hour and of two hours.
    ("0 9 * * *", "Pacific/Apia", "2011-12-29T12:00", "31 00:00:00+14:00",
     "2011-12-30 09:00 does not exist: runs at 2011-12-31 00:00"),
    ("0 */12 * * *", "Pacific/Apia", "2011-12-29T12:00", "31 00:00:00+14:00",
     "2011-12-30 00:00 to 2011-12-31 00:00 does not exist: skipped"),
    ("@daily", "Africa/Cairo", "2026-04-23T12:00", "24 01:00:00+03:00", "00:00 does not exist: runs at 01:00"),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", "04 02:30:00+11:00", "02:15 does not exist: runs at 02:30"),
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", "05 01:45:00+11:00", "01:45 is shown twice: runs the first time only"),
    ("30 1,2 * * *", "Antarctica/Troll", "2026-03-29", "29 03:00:00+02:00",
     "01:30 to 02:30 (2 times) do not exist: run once at 03:00"),
    ("0 * * * *", "UTC", "2026-03-29", "29 01:00:00+00:00", None),
]  # fmt: skip


@pytest.mark.parametrize(("expr", "zone", "after", "local", "note"), NOTES)
def test_notes_on_clock_changes(expr, zone, after, local, note):
    (found,) = preview(Cron(expr), after=at(after, zone), timezone=zone, count=1)
    assert (f"{found.local:%d} {found.local:%H:%M:%S}{found.local.isoformat()[-6:]}", found.note) == (local, note)


def test_a_preview_has_an_instant_and_its_local_time():
    (found,) = preview(Cron("30 2 * * *"), after=at("2026-06-01", ROME), timezone=ROME, count=1)
    assert found.at.isoformat() == "2026-06-01T00:30:00+00:00"
    assert found.local.isoformat() == "2026-06-01T02:30:00+02:00"
    assert found.local.utcoffset() == timedelta(hours=2)
    (utc,) = preview(Cron("30 2 * * *"), after=at("2026-06-01", "UTC"), count=1)
    assert utc.local.isoformat() == "2026-06-01T02:30:00+00:00"


def test_previews_of_one_shots():
    after = at("2026-01-01", ROME)
    (twice,) = preview(OneShot("2026-10-25 02:30"), after=after, timezone=ROME)
    assert (twice.at.hour, twice.note) == (0, "02:30 is shown twice: runs the first time only")
    (plain,) = preview(OneShot("2026-10-25 04:30"), after=after, timezone=ROME)
    (fixed,) = preview(OneShot("2026-10-25T02:30+01:00"), after=after, timezone=ROME)
    assert (plain.note, fixed.note) == (None, None)
    assert preview(OneShot("2025-10-25 04:30"), after=after, timezone=ROME) == []
    with pytest.raises(InvalidSchedule, match="does not exist in Europe/Rome"):
        preview(OneShot("2026-03-29 02:30"), after=after, timezone=ROME)


def test_an_interval_ignores_clock_changes():
    found = preview(Interval.every(minutes=30), after=at("2026-10-25T01:00", ROME), timezone=ROME, count=6)
    assert [each.local.strftime("%H:%M %z") for each in found][1:4] == ["02:00 +0200", "02:30 +0200", "02:00 +0100"]
    assert {each.note for each in found} == {None}
    anchored = preview(Interval(1500), after=at("2026-01-01", ROME), anchor=at("2025-12-31T23:59:59.900+01:00", ROME), count=1)
    assert anchored[0].at.isoformat(timespec="milliseconds") == "2025-12-31T23:00:01.400+00:00"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"count": -1}, "count must be 0 to 10,000, not -1"),
        ({"count": 10_001}, "count must be 0 to 10,000"),
        ({"count": "5"}, "count must be a whole number"),
        ({"after": datetime(2026, 1, 1)}, "after must be an aware datetime"),
        ({"timezone": "europe/rome"}, "timezone 'europe/rome' is not the name of an IANA time zone; did you mean Europe/Rome"),
        ({"timezone": ""}, "timezone must not be empty"),
        ({"anchor": 5}, "anchor must be a datetime"),
    ],
)
def test_wrong_arguments(more, message):
    with pytest.raises(InvalidSchedule, match=message):
        preview(Cron("* * * * *"), **{"after": datetime(2026, 1, 1, tzinfo=UTC), **more})


@pytest.mark.parametrize("zone", ["UTC", ROME, "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("expr", ["* * * * *", "30 2 * * *", "0 0 29 2 *"])
def test_previews_begin_in_1970_and_end_in_9997(expr, zone):
    assert len(preview(Cron(expr), after=datetime.min.replace(tzinfo=UTC), timezone=zone)) == 5
    assert preview(Cron(expr), after=datetime.max.replace(tzinfo=UTC), timezone=zone) == []
    assert preview(Cron(expr), after=datetime(2026, 1, 1, tzinfo=UTC), timezone=zone, count=0) == []
    near = preview(Cron("* * * * *"), after=datetime(9997, 12, 31, 23, 57, tzinfo=UTC), timezone=zone)
    assert [each.at.minute for each in near] == [58, 59]


def affected(expr, zone, seen, moment):
    """Whether a clock change affects a moment, by the local times of the standard library."""
    rules, expression = ZoneInfo(zone), oracle.Expression(expr)
    wall = moment.astimezone(rules).replace(tzinfo=None)
    if len({wall.replace(tzinfo=rules, fold=fold).utcoffset() for fold in (0, 1)}) > 1:
        return True
    begin, end = int(seen.timestamp()), int(moment.timestamp())
    for change in {change for year in range(seen.year, moment.year + 1) for change in changes(zone, year)}:
        if begin < change <= end if expression.rhythm else change == end:
            before, after = (datetime.fromtimestamp(by, rules).replace(tzinfo=None) for by in (change - 1, change))
            skipped = before + timedelta(seconds=1)
            while skipped < after:
                if expression.at(skipped):
                    return True
                skipped += timedelta(seconds=15 - skipped.second % 15)
    return False


@settings(max_examples=EXAMPLES, deadline=None, derandomize="CRONACTORS_EXAMPLES" not in os.environ,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])  # fmt: skip
@given(expressions, places, st.integers(0, 7), st.integers(-30, 12), st.integers(0, 3_599_999))
@example("30 2 * * *", (ROME, 2026), 0, -12, 0)
@example("*/15 2 * * *", (ROME, 2026), 0, -12, 0)
@example("*/30 * * * *", ("Pacific/Apia", 2011), 1, -12, 0)
def test_moments_are_the_fire_times_and_have_a_note_if_a_clock_change_affects_them(expr, place, which, hours, extra):
    zone, year = place
    cron = parsed(expr)
    if cron is None:
        return
    near = changes(zone, year) or [int(datetime(year, 7, 1, tzinfo=UTC).timestamp())]
    after = datetime.fromtimestamp(near[which % len(near)] + hours * 3600, UTC) + timedelta(milliseconds=extra)
    found = preview(cron, after=after, timezone=zone, count=12)
    assert [each.at for each in found] == list(islice(fire_times(cron, after=after, timezone=zone), 12))
    seen = after
    for each in found:
        assert (each.local.astimezone(UTC), each.local.utcoffset()) == (each.at, each.at.astimezone(ZoneInfo(zone)).utcoffset())
        if each.at - seen < timedelta(days=800):  # brute force would take too long
            assert (each.note is not None) == affected(expr, zone, seen, each.at), each
        seen = each.at
