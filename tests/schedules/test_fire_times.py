"""The moments of schedules of any kind: the public functions on datetimes, and those on instants."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.errors import InvalidSchedule
from cronactors.instants import LATEST, to_millis
from cronactors.schedules.fire_times import count_moments, fire_times, first_moment, latest_moment, next_moment, next_run
from cronactors.schedules.schedule import MAX_INTERVAL, Cron, Interval, OneShot

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)
NOW = to_millis(NOON)


def at(text):
    return to_millis(datetime.fromisoformat(text))


# The public functions


def test_next_run():
    assert next_run(Cron("0 9 * * *"), after=NOON) == datetime(2026, 5, 6, 9, tzinfo=UTC)
    assert next_run(Cron("0 9 * * *"), after=NOON, timezone="Europe/Rome") == datetime(2026, 5, 6, 7, tzinfo=UTC)
    assert next_run(Cron("0 0 9 * * *"), after=NOON.astimezone(ZoneInfo("Asia/Tokyo"))) == datetime(2026, 5, 6, 9, tzinfo=UTC)
    assert next_run(Interval(1000), after=NOON) == NOON + timedelta(seconds=1)
    assert next_run(Interval(1000), after=NOON, anchor=NOON - timedelta(milliseconds=300)) == NOON + timedelta(milliseconds=700)
    assert next_run(Interval(1000), after=NOON, anchor=NOON + timedelta(hours=1)) == NOON + timedelta(hours=1, seconds=1)
    assert next_run(OneShot("2026-07-01 09:00"), after=NOON, timezone="Europe/Rome") == datetime(2026, 7, 1, 7, tzinfo=UTC)
    assert next_run(OneShot("2026-07-01 09:00Z"), after=NOON, timezone="Europe/Rome") == datetime(2026, 7, 1, 9, tzinfo=UTC)
    assert next_run(OneShot("2026-05-05 12:00"), after=NOON) is None
    assert next_run(OneShot("2026-05-05 12:00"), after=NOON - timedelta(microseconds=1)) == NOON
    found = next_run(Cron("* * * * * *"), after=NOON + timedelta(microseconds=999_999))
    assert found == NOON + timedelta(seconds=1)
    assert found.tzinfo is UTC


def test_next_run_is_none_if_a_schedule_never_fires_again():
    for schedule in (Cron("@daily"), Interval(1), Cron("0 0 29 2 *"), Interval(MAX_INTERVAL)):
        assert next_run(schedule, after=datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) is None
        assert next_run(schedule, after=datetime(9998, 1, 1, tzinfo=UTC) - timedelta(milliseconds=1)) is None
    assert next_run(OneShot("9997-12-31T23:00-05:00"), after=NOON) is None
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    assert next_run(Cron("@daily"), after=early) == datetime(1970, 1, 1, tzinfo=UTC)
    assert next_run(Interval(86_400_000), after=early) == datetime(1970, 1, 1, 10, tzinfo=UTC)


def test_fire_times():
    end = NOON + timedelta(days=3)
    assert list(fire_times(Cron("0 12 * * *"), after=NOON, before=end)) == [NOON + timedelta(days=1), NOON + timedelta(days=2)]
    assert len(list(fire_times(Cron("0 12 * * *"), after=NOON, before=end + timedelta(microseconds=1)))) == 3
    assert list(islice(fire_times(Interval(250), after=NOON), 3)) == [NOON + timedelta(milliseconds=250 * k) for k in (1, 2, 3)]
    assert list(fire_times(OneShot("2026-07-01 09:00"), after=NOON)) == [datetime(2026, 7, 1, 9, tzinfo=UTC)]
    assert list(fire_times(Cron("@daily"), after=end, before=NOON)) == []


@pytest.mark.parametrize("function", [next_run, fire_times])
@pytest.mark.parametrize(
    ("change", "why"),
    [({"after": datetime(2026, 1, 1)}, "after must be an aware datetime"), ({"after": 5}, "after must be a datetime"),
     ({"after": None}, "after must be a datetime"), ({"anchor": datetime(2026, 1, 1)}, "anchor must be an aware datetime"),
     ({"anchor": "2026"}, "anchor must be a datetime"), ({"timezone": "Rome"}, "timezone 'Rome'"), ({"timezone": UTC}, "timezone must be text"),
     ({"schedule": "0 9 * * *"}, "schedule must be OneShot, Interval or Cron"), ({"schedule": None}, "schedule must be"),
     ({"schedule": OneShot("2026-03-29 02:30"), "timezone": "Europe/Rome"}, "does not exist in Europe/Rome")],
)  # fmt: skip
def test_wrong_arguments(function, change, why):
    arguments = {"schedule": Cron("@daily"), "after": NOON, **change}
    with pytest.raises(InvalidSchedule) as caught:
        function(arguments.pop("schedule"), **arguments)
    assert why in str(caught.value)


def test_fire_times_refuses_an_end_without_a_zone():
    with pytest.raises(InvalidSchedule, match="before must be an aware datetime"):
        fire_times(Cron("@daily"), after=NOON, before=datetime(2026, 1, 1))


# The functions on instants


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(1, 10**9) | st.integers(1, MAX_INTERVAL),
    st.integers(0, 2 * NOW),
    st.integers(-(10**10), 3 * NOW),
    st.integers(0, 10**11),
)
def test_intervals_do_not_drift(every, anchor, after, length):
    interval = Interval(every)
    found = next_moment(interval, after=after, zone="UTC", anchor=anchor)
    if found is None:
        assert max(after, anchor) + every >= LATEST - every
        return
    assert (found - anchor) % every == 0
    assert found >= anchor + every
    assert max(after, -1) < found
    assert found - every <= max(after, -1) or found == anchor + every
    assert latest_moment(interval, until=found, zone="UTC", anchor=anchor) == found
    before = latest_moment(interval, until=found - 1, zone="UTC", anchor=anchor)
    assert before is None or before == found - every
    until = min(found + length, LATEST - 1)
    assert (
        count_moments(interval, first=found, until=until, zone="UTC", anchor=anchor, cap=10**15) == (until - found) // every + 1
    )
    assert count_moments(interval, first=found, until=until, zone="UTC", anchor=anchor) <= 1000
    assert count_moments(interval, first=found, until=found - 1, zone="UTC", anchor=anchor) == 0


def test_a_one_shot_has_one_moment():
    shot, moment = OneShot("2026-10-25 02:30"), at("2026-10-25T00:30+00:00")
    options = {"zone": "Europe/Rome", "anchor": 0}
    assert next_moment(shot, after=moment - 1, **options) == moment
    assert next_moment(shot, after=moment, **options) is None
    assert latest_moment(shot, until=moment, **options) == moment
    assert latest_moment(shot, until=moment - 1, **options) is None
    assert count_moments(shot, first=moment, until=moment, **options) == 1
    assert count_moments(shot, first=moment, until=moment - 1, **options) == 0


def test_a_one_shot_in_skipped_local_time_fires_after_the_jump():
    shot = OneShot("2026-03-29 02:30")
    assert next_moment(shot, after=NOW - 10**10, zone="Europe/Rome", anchor=0) == at("2026-03-29T01:00+00:00")


def test_first_moment():
    assert first_moment(Cron("0 9 * * *"), now=NOW, zone="Europe/Rome") == at("2026-05-06T07:00+00:00")
    assert first_moment(Cron("0 12 * * *"), now=NOW, zone="UTC") == NOW + 86_400_000
    assert first_moment(Interval(2000), now=NOW, zone="UTC") == NOW + 2000
    for text in ("2026-05-05 12:00:00.001", "2026-05-05 12:00", "2026-05-05 11:59:00", "2026-05-05T11:59:00Z"):
        assert first_moment(OneShot(text), now=NOW, zone="UTC") == at(text.removesuffix("Z") + "+00:00")
    assert first_moment(OneShot("2026-10-25 02:30"), now=NOW, zone="Europe/Rome") == at("2026-10-25T02:30+02:00")


@pytest.mark.parametrize(
    ("schedule", "zone", "why"),
    [
        (
            OneShot("2026-05-05 11:58:59.999"),
            "UTC",
            "at '2026-05-05 11:58:59.999' is in the past: it was 2026-05-05T11:58:59.999Z",
        ),
        (
            OneShot("2026-05-05 12:00"),
            "Europe/Rome",
            "is in the past: it was 2026-05-05T10:00:00Z, now it is 2026-05-05T12:00:00Z",
        ),
        (OneShot("2027-03-28 02:30"), "Europe/Rome", "at '2027-03-28 02:30' does not exist in Europe/Rome"),
        (OneShot("9997-12-31T23:00-05:00"), "UTC", "never fires in UTC before the year 9998"),
        (Cron("* 2 * 3 L7"), "Europe/Rome", "expr '* 2 * 3 L7' never fires in Europe/Rome"),
    ],
)
def test_first_moment_refuses_what_never_fires(schedule, zone, why):
    with pytest.raises(InvalidSchedule) as caught:
        first_moment(schedule, now=NOW, zone=zone)
    assert why in str(caught.value)


def test_an_interval_beyond_the_end_never_fires():
    with pytest.raises(InvalidSchedule, match="every_ms 5000 never fires"):
        first_moment(Interval(5000), now=LATEST - 5000, zone="UTC")


@pytest.mark.parametrize(
    "expr", ["* * * * * *", "* * * * *", "0 9 * * 1-5", "0 0 L * *", "0 0 29 2 *", "0 0 * 2 5#5", "* 2 * 3 L7", "0 0 1 1 *"]
)
def test_moments_are_computed_quickly(expr):
    # The limits are ten times the measured values: they test the algorithm, not the machine.
    cron = Cron(expr)
    options = {"zone": "America/Santiago", "anchor": 0}
    begin = time.perf_counter()
    first = next_moment(cron, after=NOW, **options)
    assert time.perf_counter() - begin < 0.2
    begin = time.perf_counter()
    assert 1 <= count_moments(cron, first=first, until=first + 2 * 366 * 86_400_000, **options) <= 1000
    assert latest_moment(cron, until=first + 2 * 366 * 86_400_000, **options) >= first
    assert time.perf_counter() - begin < 0.1
