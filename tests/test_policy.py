"""Decisions on due moments and on retries: tables of cases, and properties of all values."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cronactors.instants import LATEST, Millis, from_millis
from cronactors.model import MAX_COALESCED, Cause, Coalesce, Misfire, Overlap, RunStatus
from cronactors.policy import (
    FREE_CRASHES,
    Decision,
    Moments,
    Outcome,
    RetryPlan,
    Timing,
    decide_due,
    decide_overlapped,
    misfire_from_text,
    misfire_to_text,
    plan_retry,
    retry_delay,
)
from cronactors.schedules.fire_times import next_moment
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule
from cronactors.settings import RetryPolicy

T0: Millis = 1_772_409_600_000  # 2026-03-02T00:00:00Z, a Monday
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
POLICY = RetryPolicy()
FAILED = RunStatus.FAILED


def timing(schedule: Schedule, zone: str = "UTC") -> Timing:
    return Timing(schedule=schedule, zone=zone, anchor=T0)


def decided(schedule: Schedule, first: Millis, now: Millis, zone: str = "UTC", **misfire: Any) -> Decision:
    return decide_due(timing(schedule, zone), first=first, now=now, misfire=Misfire(**misfire))


def only_run(decision: Decision) -> Moments:
    (run,) = decision.runs
    assert decision.skipped == ()
    return run


# decide_due


@pytest.mark.parametrize(
    ("schedule", "first", "late", "moment", "coalesced", "following"),
    [
        (Interval(MINUTE), MINUTE, 0, MINUTE, 1, 2 * MINUTE),
        (Interval(MINUTE), MINUTE, MINUTE - 1, MINUTE, 1, 2 * MINUTE),
        (Interval(MINUTE), MINUTE, MINUTE, 2 * MINUTE, 2, 3 * MINUTE),
        (Interval(MINUTE), MINUTE, HOUR, 61 * MINUTE, 61, 62 * MINUTE),
        (Interval(1), 1, 7 * DAY, 7 * DAY + 1, MAX_COALESCED, 7 * DAY + 2),
        (Cron("0 9 * * *"), 9 * HOUR, 0, 9 * HOUR, 1, 33 * HOUR),
        (Cron("0 9 * * *"), 9 * HOUR, 3 * DAY, 9 * HOUR + 3 * DAY, 4, 9 * HOUR + 4 * DAY),
        (Cron("* * * * * *"), SECOND, 7 * DAY, 7 * DAY + SECOND, MAX_COALESCED, 7 * DAY + 2 * SECOND),
        (OneShot(from_millis(T0 + HOUR)), HOUR, 0, HOUR, 1, None),
        (OneShot(from_millis(T0 + HOUR)), HOUR, 9 * DAY, HOUR, 1, None),
    ],
)
def test_moments_up_to_now_become_one_run_at_the_latest(schedule, first, late, moment, coalesced, following):
    found = decided(schedule, T0 + first, T0 + first + late)
    expected = None if following is None else T0 + following
    earlier = None if moment == first else T0 + first
    assert found.runs == (Moments(T0 + moment, coalesced, earlier),)
    assert (found.skipped, found.following) == ((), expected)


def test_a_skipped_and_a_repeated_hour_are_merged_as_they_were_shown():
    rome = Cron("30 2 * * *")  # 29 March 2026: 02:30 does not exist, and the job runs right after the jump
    first = next_moment(rome, after=T0 + 26 * DAY, zone="Europe/Rome", anchor=T0)
    assert first is not None
    found = decided(rome, first, first + 2 * DAY, "Europe/Rome")
    assert only_run(found).count == 3
    assert only_run(found).at <= first + 2 * DAY < (found.following or 0)


def test_the_last_moment_of_all_time_has_none_after_it():
    found = decided(Interval(DAY), LATEST - DAY, LATEST - 1)
    assert found == Decision(runs=(Moments(LATEST - DAY),), following=None)


schedules = st.one_of(
    st.integers(1, 10_000_000).map(Interval),
    st.sampled_from(["* * * * *", "*/7 * * * *", "5 */3 * * *", "30 2 * * *", "0 0 12 * * 1-5", "*/20 * * * * *"]).map(Cron),
)


@given(
    schedule=schedules,
    after=st.integers(0, 400 * DAY),
    late=st.integers(0, 3 * HOUR),
    zone=st.sampled_from(["UTC", "Europe/Rome"]),
)
def test_merged_moments_are_those_that_stepping_finds(schedule, after, late, zone):
    first = next_moment(schedule, after=T0 + after, zone=zone, anchor=T0)
    assert first is not None
    stepped = steps(schedule, zone, first, first + late)
    found = decided(schedule, first, first + late, zone)
    run = only_run(found)
    assert run.count == min(len(stepped), MAX_COALESCED)
    assert found.following is not None
    assert first <= run.at <= first + late < found.following
    if len(stepped) < 2 * MAX_COALESCED:
        assert run.at == stepped[-1]


def steps(schedule: Schedule, zone: str, first: Millis, until: Millis) -> list[Millis]:
    stepped = [first]
    while (
        len(stepped) < 2 * MAX_COALESCED
        and (step := next_moment(schedule, after=stepped[-1], zone=zone, anchor=T0)) is not None
        and step <= until
    ):
        stepped.append(step)
    return stepped


@pytest.mark.parametrize(
    ("misfire", "late", "runs", "skipped"),
    [
        # A minutely job, late by so many minutes; moments are numbered from the first that is due.
        ({"coalesce": "earliest"}, 4, [(0, 5)], []),
        ({"coalesce": "all"}, 4, [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], []),
        ({"coalesce": "all", "max_runs": 2}, 4, [(3, 1), (4, 1)], [(0, 3)]),
        ({"coalesce": "all", "max_runs": 5}, 4, [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], []),
        ({"coalesce": "all"}, 7 * 1440, [(number, 1) for number in range(9981, 10081)], [(0, MAX_COALESCED)]),
        ({"window": timedelta(minutes=2)}, 4, [(4, 3)], [(0, 2)]),
        ({"window": timedelta(minutes=2), "coalesce": "earliest"}, 4, [(2, 3)], [(0, 2)]),
        ({"window": timedelta(minutes=2), "coalesce": "all", "max_runs": 1}, 4, [(4, 1)], [(0, 2), (2, 2)]),
        ({"window": timedelta(minutes=4)}, 4, [(4, 5)], []),
        ({"window": timedelta()}, 0, [(0, 1)], []),
        ({"window": timedelta()}, 4, [(4, 1)], [(0, 4)]),
        ({"window": timedelta(minutes=2)}, 7 * 1440, [(10_080, 3)], [(0, MAX_COALESCED)]),
    ],
)
def test_each_misfire_policy(misfire, late, runs, skipped):
    found = decided(Interval(MINUTE), T0 + MINUTE, T0 + MINUTE + late * MINUTE, **misfire)

    def at(number: int) -> Millis:
        return T0 + MINUTE + number * MINUTE

    assert [(part.at, part.count) for part in found.runs] == [(at(number), count) for number, count in runs]
    assert [(part.at, part.count) for part in found.skipped] == [(at(number), count) for number, count in skipped]
    # The parts follow each other and leave no moment out.
    ends = [sorted((part.at, part.at if part.range_at is None else part.range_at)) for part in (*found.skipped, *found.runs)]
    assert [first for first, _ in ends] == [at(0), *(last + MINUTE for _, last in ends[:-1])]
    assert ends[-1][1] == at(late)
    assert found.following == at(late + 1)


def test_a_moment_outside_its_window_is_skipped_though_no_other_is_due():
    found = decided(OneShot(from_millis(T0 + HOUR)), T0 + HOUR, T0 + 2 * HOUR, window=timedelta(minutes=59))
    assert found == Decision(runs=(), skipped=(Moments(T0 + HOUR),), following=None)


misfires = st.builds(
    Misfire,
    window=st.none() | st.integers(0, 2 * HOUR).map(lambda ms: timedelta(milliseconds=ms)),
    coalesce=st.sampled_from(Coalesce),
    max_runs=st.integers(1, 30),
)


@given(schedule=schedules, after=st.integers(0, 400 * DAY), late=st.integers(0, 3 * HOUR), misfire=misfires)
def test_each_missed_moment_is_decided_once(schedule, after, late, misfire):
    first = next_moment(schedule, after=T0 + after, zone="UTC", anchor=T0)
    assert first is not None
    stepped = steps(schedule, "UTC", first, first + late)
    found = decide_due(timing(schedule), first=first, now=first + late, misfire=misfire)
    parts = sorted((*found.skipped, *found.runs), key=lambda part: part.at)
    if len(stepped) < MAX_COALESCED:
        assert sum(part.count for part in parts) == len(stepped)
    assert {part.at for part in parts} <= set(stepped) or len(stepped) == 2 * MAX_COALESCED
    assert len({part.at for part in parts}) == len(parts)
    assert found.following is not None
    assert found.following > first + late
    assert all(
        first + late - run.at <= (late if misfire.window is None else misfire.window / timedelta(milliseconds=1))
        for run in found.runs
    )


# decide_overlapped


@pytest.mark.parametrize(
    ("overlap", "waiting", "runs", "skipped"),
    [
        (Overlap.SKIP, 0, [], [(0, 5)]),
        (Overlap.BUFFER_ONE, 0, [0], [(1, 4)]),
        (Overlap.BUFFER_ONE, 1, [], [(0, 5)]),
        (Overlap.BUFFER_ALL, 0, [0, 1, 2, 3, 4], []),
        (Overlap.BUFFER_ALL, 7, [0, 1, 2, 3, 4], []),
    ],
)
def test_each_overlap_policy(overlap, waiting, runs, skipped):
    first = T0 + MINUTE
    found = decide_overlapped(timing(Interval(MINUTE)), first=first, now=first + 4 * MINUTE, overlap=overlap, waiting=waiting)
    assert found.runs == tuple(Moments(first + number * MINUTE) for number in runs)
    last = first + 4 * MINUTE
    assert found.skipped == tuple(Moments(first + number * MINUTE, count, last) for number, count in skipped)
    assert found.following == first + 5 * MINUTE


def test_no_more_than_a_thousand_moments_are_buffered():
    found = decide_overlapped(timing(Interval(1)), first=T0 + 1, now=T0 + 5000, overlap=Overlap.BUFFER_ALL, waiting=0)
    assert (len(found.runs), found.skipped) == (MAX_COALESCED, (Moments(T0 + 1001, MAX_COALESCED, T0 + 5000),))


@given(misfire=misfires)
def test_a_misfire_policy_is_stored_as_it_was(misfire):
    assert misfire_from_text(misfire_to_text(misfire)) == misfire
    assert misfire_to_text(Misfire()) == "{}"


# retry_delay


@pytest.mark.parametrize(("failures", "seconds"), [(1, 30), (2, 60), (3, 300), (4, 900), (5, 3600), (6, 3600), (1000, 3600)])
def test_the_table_of_delays_and_its_last_repeated(failures, seconds):
    assert retry_delay(POLICY, failures=failures) == seconds * SECOND


delays = st.lists(st.floats(0, 1e6), min_size=1, max_size=6)


@given(delays=delays, jitter=st.floats(0, 1), spread=st.floats(0, 1), failures=st.integers(1, 50))
def test_jitter_only_lengthens_and_by_its_share_at_most(delays, jitter, spread, failures):
    plain = retry_delay(RetryPolicy(tuple(delays)), failures=failures, spread=spread)
    spread_out = retry_delay(RetryPolicy(tuple(delays), jitter=jitter), failures=failures, spread=spread)
    exact = delays[min(failures, len(delays)) - 1] * 1000  # before it was rounded to whole milliseconds
    assert plain <= spread_out <= exact * (1 + jitter) + 0.501


def test_the_whole_jitter_is_used():
    policy = RetryPolicy((10,), jitter=0.5)
    assert [retry_delay(policy, failures=1, spread=spread) for spread in (0.0, 0.5, 1.0)] == [10_000, 12_500, 15_000]


# plan_retry


def decide(
    cause: Cause | None,
    *,
    failures: int = 0,
    crashes: int = 0,
    max_retries: int = 3,
    after: float | None = None,
    crashed: bool = False,
    status: RunStatus = FAILED,
    ready_at: Millis = T0,
    now: Millis = T0 + MINUTE,
) -> RetryPlan | None:
    outcome = Outcome(status=status, cause=cause, retry_after=after, crashed=crashed)
    return plan_retry(
        outcome, failures=failures, crashes=crashes, max_retries=max_retries, policy=POLICY, ready_at=ready_at, now=now
    )


def retry(after: Millis, failures: int, *, recovery: bool = False) -> RetryPlan:
    return RetryPlan(ready_at=T0 + MINUTE + after, failures=failures, recovery=recovery)


AT_ONCE = RetryPlan(ready_at=T0, failures=0, recovery=True)


@pytest.mark.parametrize("cause", [Cause.ERROR, Cause.TIMEOUT])
def test_a_failure_and_a_timeout_are_retried_until_the_retries_are_spent(cause):
    found = [decide(cause, failures=failures, max_retries=7) for failures in range(9)]
    expected = [retry(s * SECOND, n) for n, s in enumerate((30, 60, 300, 900, 3600, 3600, 3600), start=1)]
    assert found == [*expected, None, None]


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (RunStatus.SUCCESS, None),
        (FAILED, Cause.GAVE_UP),
        (RunStatus.CANCELLED, Cause.CANCELLED),
        (RunStatus.CANCELLED, Cause.REPLACED),
        (RunStatus.CANCELLED, Cause.REMOVED),
    ],
)
def test_other_outcomes_are_not_retried(status, cause):
    assert decide(cause, status=status, max_retries=1000) is None


def test_without_retries_nothing_is_retried():
    assert decide(Cause.ERROR, max_retries=0) is None
    assert decide(Cause.ERROR, max_retries=0, after=1.0) is None


def test_the_executor_can_set_the_delay_of_the_retry():
    assert decide(Cause.ERROR, after=1.5) == retry(1500, 1)
    assert decide(Cause.ERROR, after=0.0) == retry(0, 1)
    assert decide(Cause.ERROR, after=1.5, failures=3) is None


def test_no_retry_lies_beyond_the_end_of_time():
    found = decide(Cause.ERROR, now=LATEST - SECOND, ready_at=LATEST - SECOND)
    assert found is not None
    assert found.ready_at == LATEST


def test_an_interrupted_run_keeps_its_order_and_costs_nothing():
    assert decide(Cause.INTERRUPTED) == AT_ONCE
    assert decide(Cause.INTERRUPTED, failures=3, max_retries=3) == RetryPlan(ready_at=T0, failures=3, recovery=True)
    assert decide(Cause.INTERRUPTED, ready_at=T0 + HOUR) == RetryPlan(
        ready_at=T0 + MINUTE, failures=0, recovery=True
    )  # clock set back


def test_from_the_third_crash_on_an_interruption_costs_a_retry_and_waits():
    found = [decide(Cause.INTERRUPTED, crashes=crashes, crashed=True) for crashes in (1, 2, 3, 4)]
    assert found == [AT_ONCE, AT_ONCE, retry(30 * SECOND, 1, recovery=True), retry(30 * SECOND, 1, recovery=True)]
    assert decide(Cause.INTERRUPTED, crashes=3, crashed=True, failures=3) is None


def test_an_orderly_interruption_stays_free_whatever_crashed_before():
    assert decide(Cause.INTERRUPTED, crashes=FREE_CRASHES + 1) == AT_ONCE
    assert decide(Cause.INTERRUPTED, crashes=FREE_CRASHES + 1, max_retries=0) == AT_ONCE


@given(
    max_retries=st.integers(0, 12),
    ends=st.lists(st.tuples(st.sampled_from([Cause.ERROR, Cause.TIMEOUT, Cause.INTERRUPTED]), st.booleans()), max_size=60),
)
def test_a_moment_is_retried_as_often_as_allowed_and_never_more(max_retries, ends):
    failures, crashes, spent = 0, 0, 0
    for cause, killed in ends:
        crashed = killed and cause is Cause.INTERRUPTED
        crashes = crashes + 1 if crashed else crashes
        again = decide(cause, failures=failures, crashes=crashes, max_retries=max_retries, crashed=crashed)
        costs = cause is not Cause.INTERRUPTED or (crashed and crashes > FREE_CRASHES)
        if again is None:
            assert costs
            assert failures == max_retries
            break
        assert again.failures == failures + costs
        assert again.recovery == (cause is Cause.INTERRUPTED)
        spent += costs
        failures = again.failures
    assert failures == spent <= max_retries


@given(delays=delays, failures=st.integers(0, 20))
def test_with_growing_delays_a_later_retry_never_waits_less(delays, failures):
    policy = RetryPolicy(tuple(sorted(delays)))
    waits = [retry_delay(policy, failures=n) for n in range(1, failures + 2)]
    assert all(sooner <= later for sooner, later in pairwise(waits))
