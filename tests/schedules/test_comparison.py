"""Which fire times a schedule loses and gains, if another one takes its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from cronactors import Cron, CronJob, FireTimeChanges, Interval, InvalidSchedule, OneShot, Timetable, compare_fire_times
from cronactors.schedules.fire_times import fire_times

SINCE = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = SINCE + timedelta(days=7)


def day(number: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, number, hour, minute, tzinfo=UTC)


def test_times_that_are_gone_new_and_kept() -> None:
    changed = compare_fire_times(Timetable(Cron("0 9,12 * * *")), Timetable(Cron("0 12,15 * * *")), since=SINCE, until=day(4, 0))
    assert changed == FireTimeChanges([day(2, 9), day(3, 9)], [day(2, 15), day(3, 15)], 2, day(4, 0))


def test_the_same_expression_in_another_zone_moves_across_a_clock_change() -> None:
    since, until = datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, tzinfo=UTC)
    changed = compare_fire_times(
        Timetable(Cron("0 9 * * *"), "Europe/Rome"), Timetable(Cron("0 8 * * *")), since=since, until=until
    )
    assert (changed.gone, changed.new, changed.kept) == ([day(29, 7)], [day(29, 8)], 1)


def test_an_interval_counts_from_its_anchor() -> None:
    hourly = Interval.every(hours=1)
    old, new = Timetable(hourly, anchor=SINCE), Timetable(hourly, anchor=SINCE + timedelta(minutes=30))
    changed = compare_fire_times(old, new, since=SINCE, until=day(2, 3))
    assert (changed.gone, changed.new, changed.kept) == ([day(2, 1), day(2, 2)], [day(2, 1, 30), day(2, 2, 30)], 0)


def test_the_timetable_of_a_job_with_an_interval_has_its_next_moment() -> None:
    job = CronJob(id="1", name="j", prompt="p", schedule=Interval.every(hours=1), created_at=SINCE, next_run_at=day(2, 9, 20))
    changed = compare_fire_times(Timetable.of(job), Timetable(OneShot(WEEK)), since=day(2, 9), until=day(2, 11))
    assert changed.gone == [day(2, 9, 20), day(2, 10, 20)]


def test_it_stops_after_so_many_differences_and_says_where() -> None:
    changed = compare_fire_times(Timetable(Cron("* * * * *")), Timetable(Cron("0 0 1 1 *")), since=SINCE, until=WEEK, limit=3)
    assert (len(changed.gone), changed.new, changed.until) == (3, [], day(2, 0, 4))


@pytest.mark.parametrize("limit", [0, 100_001, 1.5, True])
def test_a_wrong_limit_is_refused(limit: int) -> None:
    with pytest.raises(InvalidSchedule, match="limit"):
        compare_fire_times(Timetable(Cron("@daily")), Timetable(Cron("@daily")), since=SINCE, until=WEEK, limit=limit)


EXPRESSIONS = st.sampled_from(["0 9 * * *", "30 2 * * *", "*/45 * * * *", "0 */5 * * *", "15 9-11 * * 1-5", "0 0 1 * *"])
ZONES = st.sampled_from(["UTC", "Europe/Rome", "America/New_York", "Australia/Lord_Howe"])


@given(EXPRESSIONS, ZONES, EXPRESSIONS, ZONES, st.integers(0, 365))
def test_it_agrees_with_sets(old: str, old_zone: str, new: str, new_zone: str, days: int) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days)
    until = since + timedelta(days=5)
    before = set(fire_times(Cron(old), after=since, before=until, timezone=old_zone))
    after = set(fire_times(Cron(new), after=since, before=until, timezone=new_zone))
    changed = compare_fire_times(Timetable(Cron(old), old_zone), Timetable(Cron(new), new_zone), since=since, until=until)
    assert changed == FireTimeChanges(sorted(before - after), sorted(after - before), len(before & after), until)
