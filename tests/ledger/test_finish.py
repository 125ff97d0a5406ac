"""Finishing a run: overlapped moments, retries, interruptions, and jobs that are done with it."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from cronactors.model import Misfire, Overlap, SessionMode
from cronactors.schedules.schedule import Interval
from cronactors.settings import RetryPolicy
from tests.ledger_world import (
    CANCELLED,
    FAILURE,
    GAVE_UP,
    HOUR,
    HOURLY,
    INTERRUPTED,
    MINUTE,
    SECOND,
    SUCCESS,
    T0,
    TIMEOUT,
    at,
)

MAIN = {"session_mode": SessionMode.MAIN, "user_id": "ann"}


# Overlap


def test_moments_that_overlapped_are_one_skipped_row(world):
    job = world.add()
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pass_time(3 * MINUTE + 1)
    assert world.claim() == []
    assert world.summary(job) == [("running", None, MINUTE, 1, 1)]
    world.finish(run)
    assert world.summary(job) == [("success", None, MINUTE, 1, 1), ("skipped", "overlap", 2 * MINUTE, 1, 3)]
    (skipped,) = world.history(job)[1:]
    assert (skipped.started_at, skipped.completed_at, skipped.error) == (None, world.now, None)
    assert world.job(job).next_run_at == T0 + 5 * MINUTE


def test_a_moment_at_the_instant_at_which_a_run_finishes_overlapped_it(world):
    job = world.add()
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pass_time(MINUTE)
    world.finish(run)
    assert world.summary(job)[1] == ("skipped", "overlap", 2 * MINUTE, 1, 1)
    assert world.claim() == []


def test_moments_that_were_late_before_the_run_started_are_not_skipped(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR - 1)
    requested = world.request(job)
    world.pass_time(2 * HOUR)
    (claimed,) = world.claim()  # both are due; the requested run is due before the moments
    assert claimed.run.id == requested.id
    world.pass_time(HOUR)
    world.finish(claimed.run)
    assert world.summary(job)[1:] == [
        ("pending", None, 2 * HOUR, 1, 2),
        ("skipped", "overlap", 3 * HOUR, 1, 1),
    ]
    late = world.claim_one()
    assert late.scheduled_at == T0 + 2 * HOUR


def test_moments_late_before_a_run_started_follow_the_misfire_policy_and_later_ones_are_buffered(world):
    window = Misfire(window=timedelta(minutes=90))
    job = world.add(HOURLY, overlap=Overlap.BUFFER_ALL, misfire=window)
    world.pass_time(HOUR - 1)
    world.request(job)
    world.pass_time(2 * HOUR)
    requested = world.claim_one()
    world.pass_time(2 * HOUR)
    world.finish(requested)
    assert world.summary(job)[1:] == [
        ("pending", None, 2 * HOUR, 1, 1),
        ("skipped", "misfire", HOUR, 1, 1),
        ("pending", None, 3 * HOUR, 1, 1),
        ("pending", None, 4 * HOUR, 1, 1),
    ]
    assert world.claim_one().scheduled_at == T0 + 2 * HOUR
    assert world.claim() == []


def test_a_buffered_moment_replaces_the_retry_of_the_one_before(world):
    job = world.add(overlap=Overlap.BUFFER_ONE)
    world.pass_time(MINUTE)
    first = world.claim_one()
    world.pass_time(MINUTE)
    world.finish(first, FAILURE)
    second = world.claim_one()
    assert second.scheduled_at == T0 + 2 * MINUTE
    assert world.summary(job) == [
        ("failed", "error", MINUTE, 1, 1),
        ("running", None, 2 * MINUTE, 1, 1),
        ("cancelled", "replaced", MINUTE, 2, 1),
    ]


def test_a_requested_run_overlaps_like_any_other(world):
    job = world.add()
    world.request(job)
    requested = world.claim_one()
    world.pass_time(2 * MINUTE)
    world.finish(requested)
    assert world.summary(job)[1:] == [("skipped", "overlap", MINUTE, 1, 2)]


# Retries


def test_a_failing_moment_is_retried_after_each_delay_until_its_retries_are_spent(world):
    job = world.add(at(T0), max_retries=6)
    waits = []
    for attempt in range(1, 8):
        run = world.claim_one()
        assert (run.attempt, run.failures, run.scheduled_at) == (attempt, attempt - 1, T0)
        assert run.trigger == ("schedule" if attempt == 1 else "retry")
        before = world.now
        world.finish(run, TIMEOUT if attempt % 2 else FAILURE)
        view = world.view(job)
        assert view.last_error == ("timed out" if attempt % 2 else "boom")
        if view.retry_at is None:
            break
        assert view.retry_count == attempt
        ready = world.do(lambda storage: storage.next_times().due)
        world.now = ready - 1
        assert world.claim() == []
        world.now = ready
        waits.append((ready - before) // SECOND)
    assert waits == [30, 60, 300, 900, 3600, 3600]
    view = world.view(job)
    assert (view.enabled, view.retry_count, view.retry_at, view.last_error) == (False, 0, None, "timed out")
    assert [summary[:2] for summary in world.summary(job)] == [("failed", "timeout"), ("failed", "error")] * 3 + [
        ("failed", "timeout")
    ]


def test_a_new_moment_replaces_a_pending_retry_and_has_all_its_retries(world):
    job = world.add(Interval(20 * SECOND))
    world.pass_time(20 * SECOND)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(20 * SECOND)
    run = world.claim_one()
    assert (run.attempt, run.failures, run.scheduled_at) == (1, 0, T0 + 40 * SECOND)
    assert world.summary(job) == [
        ("failed", "error", 20 * SECOND, 1, 1),
        ("cancelled", "replaced", 20 * SECOND, 2, 1),
        ("running", None, 40 * SECOND, 1, 1),
    ]
    assert world.view(job).retry_count == 0


def test_a_success_clears_the_state_of_retries(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(30 * SECOND)
    retry = world.claim_one()
    assert world.view(job).retry_count == 1
    world.finish(retry)
    view = world.view(job)
    assert (view.retry_count, view.retry_at, view.last_error, view.enabled) == (0, None, None, True)
    assert view.last_run_at is not None
    assert world.summary(job) == [("failed", "error", HOUR, 1, 1), ("success", None, HOUR, 2, 1)]


def test_a_retry_stands_for_as_many_moments_as_the_first_attempt(world):
    world.add()
    world.pass_time(5 * MINUTE)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(30 * SECOND)
    assert world.claim_one().coalesced == 5


def test_giving_up_spends_no_retries(world):
    job = world.add(HOURLY, max_retries=5)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), GAVE_UP)
    assert world.summary(job) == [("failed", "gave_up", HOUR, 1, 1)]
    assert (world.view(job).retry_at, world.view(job).last_error) == (None, "no use")
    assert world.view(job).enabled


def test_the_executor_may_choose_the_delay(world):
    world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), attrs.evolve(FAILURE, retry_after=7.5))
    assert world.do(lambda storage: storage.next_times().due) == world.now + 7_500


def test_delays_and_jitter_are_those_of_the_scheduler(world):
    world.policy = RetryPolicy((10,), jitter=1.0)
    world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), attrs.evolve(FAILURE, spread=0.5))
    assert world.do(lambda storage: storage.next_times().due) == world.now + 15_000


def test_moments_during_a_retry_are_skipped_and_its_own_retry_stays(world):
    job = world.add()
    world.pass_time(MINUTE)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(30 * SECOND)
    retry = world.claim_one()
    world.pass_time(MINUTE)
    world.finish(retry, FAILURE)
    assert world.summary(job)[1:] == [
        ("failed", "error", MINUTE, 2, 1),
        ("skipped", "overlap", 2 * MINUTE, 1, 1),
        ("pending", None, MINUTE, 3, 1),
    ]


# Interruptions


def test_an_interrupted_run_is_put_back_and_costs_no_retry(world):
    job = world.add(HOURLY, max_retries=1)
    world.pass_time(HOUR)
    for attempt in range(1, 6):
        run = world.claim_one()
        assert (run.attempt, run.failures) == (attempt, 0)
        assert run.trigger == ("schedule" if attempt == 1 else "recovery")
        world.finish(run, INTERRUPTED)
    assert world.view(job).retry_count == 0
    world.finish(world.claim_one(), FAILURE)
    assert world.view(job).retry_count == 1


def test_an_interrupted_retry_keeps_its_number_of_failures(world):
    world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(30 * SECOND)
    world.finish(world.claim_one(), INTERRUPTED)
    again = world.claim_one()
    assert (again.attempt, again.failures, again.trigger) == (3, 1, "recovery")


# Jobs that are done


def test_a_one_shot_that_succeeded_is_kept_and_disabled(world):
    job = world.add(at(T0 + HOUR))
    world.pass_time(HOUR)
    run = world.claim_one()
    assert world.job(job).enabled
    world.finish(run)
    row = world.job(job)
    assert (row.enabled, row.next_run_at, row.held_by) == (0, None, None)


@pytest.mark.parametrize(("outcome", "gone"), [(SUCCESS, True), (GAVE_UP, True), (CANCELLED, True), (INTERRUPTED, False)])
def test_a_one_shot_to_be_deleted_goes_once_its_moment_is_decided(world, outcome, gone):
    job = world.add(at(T0), delete_after_run=True)
    world.finish(world.claim_one(), outcome)
    assert world.exists(job) is not gone
    assert world.summary(job)[0] == (outcome.status, outcome.cause, 0, 1, 1)


def test_a_one_shot_to_be_deleted_goes_when_its_retries_are_spent(world):
    job = world.add(at(T0), delete_after_run=True, max_retries=1)
    world.finish(world.claim_one(), FAILURE)
    assert world.exists(job)
    world.pass_time(30 * SECOND)
    world.finish(world.claim_one(), FAILURE)
    assert not world.exists(job)
    assert [summary[0] for summary in world.summary(job)] == ["failed", "failed"]


def test_a_one_shot_that_its_file_lists_is_disabled_instead_of_deleted(world):
    spec = world.spec(at(T0), delete_after_run=True)
    (job,) = world.upsert(spec, origin="agent.toml")
    world.finish(world.claim_one())
    assert world.job(job).enabled == 0
    assert world.upsert(spec, origin="agent.toml") == [job]
    assert world.job(job).enabled == 0
    assert world.claim() == []
    world.upsert(origin="agent.toml")
    assert not world.exists(job)


def test_a_recurring_job_to_be_deleted_goes_after_its_first_moment(world):
    job = world.add(delete_after_run=True)
    world.request(job)
    world.finish(world.claim_one())
    assert world.exists(job)  # a requested run is no moment
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pass_time(5 * MINUTE)
    world.finish(run)
    assert not world.exists(job)
    assert world.summary(job)[1:] == [("success", None, MINUTE, 1, 1), ("skipped", "overlap", 2 * MINUTE, 1, 5)]
    world.pass_time(HOUR)
    assert world.claim() == []


def test_a_recurring_job_to_be_deleted_outlives_a_cancelled_moment(world):
    job = world.add(delete_after_run=True)
    world.pass_time(MINUTE)
    world.finish(world.claim_one(), CANCELLED)
    assert world.exists(job)


def test_a_new_request_replaces_the_retry_of_an_earlier_one(world):
    job = world.add(HOURLY)
    first = world.request(job)
    world.finish(world.claim_one(), FAILURE)
    assert world.view(job).retry_count == 1
    second = world.request(job)
    assert [(run.status, run.cause) for run in world.history(job)] == [
        ("failed", "error"),
        ("cancelled", "replaced"),
        ("pending", None),
    ]
    assert world.claim_one().id == second.id != first.id
