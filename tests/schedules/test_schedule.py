"""The three kinds of schedule: valid and invalid arguments, and equality."""

from __future__ import annotations

import pickle
from datetime import timedelta

import attrs
import pytest

from cronactors.errors import InvalidSchedule
from cronactors.schedules.schedule import MAX_INTERVAL, Cron, Interval, OneShot

SCHEDULES = [
    Cron("0 0 9 * * *"),
    Cron("@daily"),
    Interval(2000),
    Interval(MAX_INTERVAL),
    OneShot("2026-07-01 09:00"),
    OneShot("2026-07-01T09:00Z"),
]


@pytest.mark.parametrize("every", [1, 999, MAX_INTERVAL])
def test_an_interval_takes_1_ms_to_100_years(every):
    assert Interval(every).every_ms == every


@pytest.mark.parametrize("every", [0, -1, MAX_INTERVAL + 1, 10**400, True, 1.0, "5", None, float("nan"), timedelta(seconds=1)])
def test_an_interval_refuses_other_values(every):
    with pytest.raises(InvalidSchedule, match=r"^every_ms must be"):
        Interval(every)


def test_an_interval_is_the_sum_of_its_parts():
    assert Interval.every(hours=1, minutes=2, seconds=3, ms=4) == Interval(3_723_004)
    assert Interval.every(hours=1.5) == Interval(5_400_000)
    assert Interval.every(seconds=0.07) == Interval(70)
    assert Interval.every(seconds=0.001) == Interval(1)


@pytest.mark.parametrize(
    ("parts", "field"),
    [({}, "every_ms"), ({"ms": 1.5}, "every_ms"), ({"seconds": 0.0001}, "every_ms"), ({"hours": -1}, "hours"), ({"minutes": "5"}, "minutes"),
     ({"seconds": float("nan")}, "seconds"), ({"ms": float("inf")}, "ms"), ({"hours": 10**9}, "every_ms"), ({"ms": True}, "ms"),
     ({"seconds": None}, "seconds")],
)  # fmt: skip
def test_an_interval_refuses_wrong_parts(parts, field):
    with pytest.raises(InvalidSchedule, match=rf"^{field} must be"):
        Interval.every(**parts)


def test_schedules_are_values():
    for schedule in SCHEDULES:
        assert schedule == pickle.loads(pickle.dumps(schedule))
        assert hash(schedule) == hash(attrs.evolve(schedule))
        assert type(schedule).__name__ in repr(schedule)
    assert OneShot("2026-07-01 09:00") != OneShot("2026-07-01T09:00")
    with pytest.raises(AttributeError):
        Cron("@daily").expr = "@hourly"
