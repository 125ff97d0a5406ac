"""Moments of intervals and one-shots, about their anchor and at both ends of time."""

from __future__ import annotations

import pytest

from cronactors.instants import EARLIEST, LATEST, from_millis
from cronactors.schedules.fire_times import count_moments, fire_times, latest_moment, next_moment, next_run
from cronactors.schedules.lint import lint
from cronactors.schedules.preview import preview
from cronactors.schedules.schedule import Interval, OneShot

ANCHOR = 1_772_409_600_000
MINUTE = 60_000


@pytest.mark.parametrize(
    ("at", "following", "latest"),
    [
        # Milliseconds after the anchor; the anchor itself is no moment.
        (-MINUTE, MINUTE, None),
        (-1, MINUTE, None),
        (0, MINUTE, None),
        (MINUTE - 1, MINUTE, None),
        (MINUTE, 2 * MINUTE, MINUTE),
        (MINUTE + 1, 2 * MINUTE, MINUTE),
        (2 * MINUTE - 1, 2 * MINUTE, MINUTE),
        (2 * MINUTE, 3 * MINUTE, 2 * MINUTE),
    ],
)
def test_an_interval_about_its_anchor(at, following, latest):
    found = next_moment(Interval(MINUTE), after=ANCHOR + at, zone="UTC", anchor=ANCHOR)
    assert found == ANCHOR + following
    before = latest_moment(Interval(MINUTE), until=ANCHOR + at, zone="UTC", anchor=ANCHOR)
    assert before == (None if latest is None else ANCHOR + latest)


@pytest.mark.parametrize(
    ("first", "until", "expected"),
    [
        (0, 0, 0),
        (0, MINUTE, 1),
        (-5 * MINUTE, MINUTE, 1),  # nothing before the anchor counts
        (MINUTE, MINUTE, 1),
        (MINUTE, 2 * MINUTE - 1, 1),
        (MINUTE, 2 * MINUTE, 2),
        (MINUTE + 1, 2 * MINUTE, 1),
        (2 * MINUTE, MINUTE, 0),
        (MINUTE, 1_000 * MINUTE, 1_000),
        (MINUTE, 1_001 * MINUTE, 1_000),
    ],
)
def test_counting_an_interval(first, until, expected):
    found = count_moments(Interval(MINUTE), first=ANCHOR + first, until=ANCHOR + until, zone="UTC", anchor=ANCHOR)
    assert found == expected


def test_an_interval_at_the_ends_of_time():
    assert next_moment(Interval(1), after=-(10**15), zone="UTC", anchor=-5) == EARLIEST
    assert next_moment(Interval(1), after=LATEST - 2, zone="UTC", anchor=0) == LATEST - 1
    assert next_moment(Interval(1), after=LATEST - 1, zone="UTC", anchor=0) is None
    assert next_moment(Interval(1), after=LATEST, zone="UTC", anchor=0) is None
    assert latest_moment(Interval(1), until=10**18, zone="UTC", anchor=0) == LATEST - 1
    assert latest_moment(Interval(1), until=-1, zone="UTC", anchor=-5) is None
    assert latest_moment(Interval(1), until=0, zone="UTC", anchor=-5) == 0
    assert latest_moment(Interval(10), until=3, zone="UTC", anchor=-15) is None  # it was at -5
    assert count_moments(Interval(1), first=-5, until=3, zone="UTC", anchor=-10) == 4
    assert count_moments(Interval(1), first=LATEST - 3, until=LATEST + 5, zone="UTC", anchor=0) == 3


@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome"])
def test_a_one_shot_is_a_single_moment(zone):
    once = OneShot(from_millis(ANCHOR))
    for at, following, latest in ((-1, ANCHOR, None), (0, None, ANCHOR), (1, None, ANCHOR)):
        assert next_moment(once, after=ANCHOR + at, zone=zone, anchor=0) == following
        assert latest_moment(once, until=ANCHOR + at, zone=zone, anchor=0) == latest
    counts = [
        count_moments(once, first=ANCHOR + first, until=ANCHOR + until, zone=zone, anchor=0)
        for first, until in ((-1, -1), (-1, 0), (0, 0), (0, 1), (1, 1), (1, 0))
    ]
    assert counts == [0, 1, 1, 1, 0, 0]


def test_instants_and_parts_are_named():
    # Two instants, or hours and minutes, in a row could be swapped without anyone noticing.
    now = from_millis(ANCHOR)
    for call in (
        lambda: Interval.every(1),  # type: ignore[misc]
        lambda: next_run(Interval(1), now),  # type: ignore[misc]
        lambda: fire_times(Interval(1), now),  # type: ignore[misc]
        lambda: preview(Interval(1), now),  # type: ignore[misc]
        lambda: lint(Interval(1), "UTC", now),  # type: ignore[misc]
        lambda: next_moment(Interval(1), ANCHOR, "UTC", ANCHOR),  # type: ignore[misc]
        lambda: latest_moment(Interval(1), ANCHOR, "UTC", ANCHOR),  # type: ignore[misc]
        lambda: count_moments(Interval(1), ANCHOR, ANCHOR, "UTC", ANCHOR),  # type: ignore[misc]
    ):
        with pytest.raises(TypeError, match="positional argument"):
            call()
