"""Due moments whose stored first one is no moment of the schedule any more, damaged misfire texts, texts that are cut."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cronactors.errors import InvalidJob
from cronactors.instants import Millis
from cronactors.model import MAX_COALESCED, Coalesce, Misfire, Overlap
from cronactors.policy import (
    Decision,
    Moments,
    Timing,
    decide_due,
    decide_overlapped,
    is_outside_window,
    misfire_from_text,
    misfire_to_text,
    retry_delay,
    truncated,
)
from cronactors.schedules.schedule import Cron, Interval
from cronactors.settings import RetryPolicy

T0: Millis = 1_772_409_600_000  # 2026-03-02T00:00:00Z
SECOND, MINUTE = 1_000, 60_000
MINUTELY = Timing(schedule=Interval(MINUTE), zone="UTC", anchor=T0)


# A moment that was stored by older rules of its zone lies between those of today's


@pytest.mark.parametrize(
    ("misfire", "runs", "skipped"),
    [
        # Of single runs it is left out: its date may have another moment by the rules of today, which runs.
        (Misfire(coalesce=Coalesce.ALL), [(120, 1, None), (180, 1, None)], [(90, 1, None)]),
        (Misfire(coalesce=Coalesce.ALL, max_runs=3), [(120, 1, None), (180, 1, None)], [(90, 1, None)]),
        (Misfire(coalesce=Coalesce.ALL, max_runs=2), [(120, 1, None), (180, 1, None)], [(90, 1, None)]),
        (Misfire(coalesce=Coalesce.ALL, max_runs=1), [(180, 1, None)], [(90, 1, 120)]),
        (Misfire(coalesce=Coalesce.LATEST), [(180, 2, 90)], []),
        (Misfire(coalesce=Coalesce.EARLIEST), [(90, 2, 180)], []),
    ],
)
def test_a_first_moment_between_those_of_the_schedule_is_decided_once(misfire, runs, skipped):
    found = decide_due(MINUTELY, first=T0 + 90 * SECOND, now=T0 + 200 * SECOND, misfire=misfire)

    def seconds(parts: tuple[Moments, ...]) -> list[tuple[int, int, int | None]]:
        return [
            ((part.at - T0) // SECOND, part.count, None if part.range_at is None else (part.range_at - T0) // SECOND)
            for part in parts
        ]

    assert (seconds(found.runs), seconds(found.skipped)) == (runs, skipped)
    assert found.following == T0 + 240 * SECOND


@pytest.mark.parametrize(
    ("first", "now", "expected"),
    [
        (90, 119, Decision(runs=(Moments(T0 + 90 * SECOND),), following=T0 + 120 * SECOND)),
        (30, 59, Decision(runs=(Moments(T0 + 30 * SECOND),), following=T0 + 60 * SECOND)),  # before the first of the schedule
        (30, 60, Decision(runs=(Moments(T0 + 60 * SECOND, 1, T0 + 30 * SECOND),), following=T0 + 120 * SECOND)),
    ],
)
def test_a_first_moment_that_the_schedule_has_not(first, now, expected):
    assert decide_due(MINUTELY, first=T0 + first * SECOND, now=T0 + now * SECOND, misfire=Misfire()) == expected


# Overlapped moments


def test_the_local_time_of_overlapped_moments_is_decided():
    timing = Timing(schedule=Cron("0 9 * * *"), zone="Europe/Rome", anchor=T0)
    eight = T0 + 8 * 60 * MINUTE  # 09:00 in Rome
    found = decide_overlapped(timing, first=eight, now=eight + MINUTE, overlap=Overlap.SKIP, waiting=0)
    assert found.skipped == (Moments(eight),)
    assert found.decided_local == (T0 + (9 * 60 + 1) * MINUTE) // 1000
    assert found.following == eight + 24 * 60 * MINUTE


@pytest.mark.parametrize("overlap", [Overlap.ALLOW_ALL, Overlap.CANCEL_OTHER])
def test_other_policies_buffer_nothing(overlap):
    first = T0 + MINUTE
    found = decide_overlapped(MINUTELY, first=first, now=first + MINUTE, overlap=overlap, waiting=0)
    assert (found.runs, found.skipped) == ((), (Moments(first, 2, first + MINUTE),))


def test_a_buffer_of_one_that_is_more_than_full_takes_nothing():
    first = T0 + MINUTE
    found = decide_overlapped(MINUTELY, first=first, now=first, overlap=Overlap.BUFFER_ONE, waiting=2)
    assert (found.runs, found.skipped) == ((), (Moments(first),))


def test_moments_are_listed_in_order_up_to_a_number():
    first = T0 + MINUTE
    assert MINUTELY.listed(first, first + 2 * MINUTE, 10) == [first, first + MINUTE, first + 2 * MINUTE]
    assert MINUTELY.listed(first, first + 2 * MINUTE, 2) == [first, first + MINUTE]
    assert MINUTELY.listed(first, first + 2 * MINUTE, 0) == []
    assert MINUTELY.listed(first, first - 1, 10) == []


# Moments by their first


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        (Moments(5), Moments(5)),
        (Moments(5, 3, 9), Moments(5, 3, 9)),
        (Moments(9, 3, 5), Moments(5, 3, 9)),
        (Moments(9, 3, 0), Moments(0, 3, 9)),
    ],
)
def test_moments_in_a_row_by_the_first_of_them(moments, expected):
    assert moments.by_first == expected


# The window


def test_a_window_includes_its_end_and_whole_milliseconds_count():
    assert not is_outside_window(Misfire(), T0, T0 + 10**12)
    for window, longest in ((timedelta(), 0), (timedelta(milliseconds=5), 5), (timedelta(microseconds=5_999), 5)):
        misfire = Misfire(window=window)
        assert [is_outside_window(misfire, T0, T0 + late) for late in (0, longest, longest + 1)] == [False, False, True]


# Texts


def test_what_is_stored_of_a_misfire_policy():
    assert misfire_to_text(Misfire(window=timedelta(seconds=90))) == '{"window_ms": 90000}'
    assert misfire_to_text(Misfire(window=timedelta(microseconds=1_500), coalesce=Coalesce.ALL, max_runs=7)) == (
        '{"window_ms": 1, "coalesce": "all", "max_runs": 7}'
    )
    assert misfire_from_text("{}") == Misfire()
    assert misfire_from_text('{"window_ms": 90000}') == Misfire(window=timedelta(seconds=90))
    assert misfire_from_text('{"window_ms": null}') == Misfire()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "5", "null", "[]", '"latest"', '{"more": 1}', '{"window_ms": "x"}', '{"window_ms": 1e300}', '{"window_ms": []}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:20] or "empty",
)  # fmt: skip
def test_a_damaged_misfire_policy_is_refused(text):
    with pytest.raises(InvalidJob, match=r"^misfire '.*cannot be read$"):
        misfire_from_text(text)


class Text(str):
    """A text of the user's own class."""

    __slots__ = ()

    def __getitem__(self, key) -> Text:
        return Text(str.__getitem__(self, key))


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("", 3, ""),
        ("naïve", 5, "naïve"),
        ("naïve…", 5, "naïv…"),
        ("a\0b", 3, "a\N{REPLACEMENT CHARACTER}b"),
        ("a\ud800b", 3, "a?b"),
        ("\ud800\0", 2, "?\N{REPLACEMENT CHARACTER}"),
        (Text("abc"), 3, "abc"),
        (Text("abcd"), 3, "ab…"),
    ],
    ids=ascii,
)
def test_a_text_is_cut_to_its_limit_and_made_storable(text, limit, expected):
    found = truncated(text, limit)
    assert found == expected
    assert type(found) is str
    found.encode()


def test_moments_are_counted_to_a_thousand():
    merged = Timing(schedule=Interval(1), zone="UTC", anchor=T0).merged(T0 + 1, T0 + 5_000)
    assert merged == Moments(T0 + 1, MAX_COALESCED, T0 + 5_000)
    assert MAX_COALESCED == 1000


def test_without_a_spread_a_delay_is_not_lengthened():
    assert retry_delay(RetryPolicy((30,), jitter=1), failures=1) == 30_000


@pytest.mark.parametrize(("local", "days"), [(-2, 0), (-1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("second", [0, 1])
def test_the_first_moment_after_a_local_time(local, days, second):
    timing = Timing(schedule=Cron(f"{second} 0 9 * * *"), zone="Europe/Rome", anchor=T0)
    nine = T0 // 1000 + 9 * 3_600 + second  # of the clock on the wall
    assert timing.after_local(nine + local) == (nine + days * 86_400 - 3_600) * 1000
