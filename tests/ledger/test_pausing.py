"""Pausing and resuming, in every state of a job's runs."""

from __future__ import annotations

import pytest

from cronactors.errors import InvalidJob
from cronactors.instants import from_millis
from cronactors.model import SessionMode
from cronactors.schedules.schedule import Cron, OneShot
from tests.ledger_world import (
    FAILURE,
    HOUR,
    HOURLY,
    MINUTE,
    SECOND,
    T0,
    at,
)

MAIN = {"session_mode": SessionMode.MAIN, "user_id": "ann"}
NINE = Cron("0 9 * * *")


# Pausing and resuming


def test_moments_that_pass_while_paused_are_neither_run_nor_missed(world):
    job = world.add()
    world.pause(job)
    assert world.view(job).next_run_at is None
    world.pass_time(10 * MINUTE + SECOND)
    assert world.claim() == []
    assert world.do(lambda storage: storage.next_times().due) is None
    world.resume(job)
    assert world.view(job).next_run_at == from_millis(T0 + 11 * MINUTE)
    assert world.claim() == []
    assert world.history(job) == []


def test_pausing_or_resuming_twice_changes_nothing(world):
    job = world.add()
    assert world.resume(job) == world.job(job)
    world.pause(job)
    before = world.job(job)
    world.pass_time(MINUTE)
    assert world.pause(job) == before == world.job(job)


def test_a_moment_that_came_due_before_the_pause_is_recorded(world):
    job = world.add()
    world.pass_time(3 * MINUTE)
    world.pause(job)
    assert world.summary(job) == [("skipped", "cancelled", MINUTE, 1, 3)]
    world.pass_time(10 * MINUTE)
    world.resume(job)
    assert world.claim() == []
    assert len(world.history(job)) == 1


def test_moments_that_came_due_during_a_run_and_before_the_pause_are_recorded(world):
    job = world.add()
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pass_time(2 * MINUTE)
    world.pause(job)
    world.pass_time(MINUTE)
    world.finish(run)
    world.resume(job)
    assert world.summary(job) == [("success", None, MINUTE, 1, 1), ("skipped", "cancelled", 2 * MINUTE, 1, 2)]


@pytest.mark.parametrize(("change", "cause"), [("schedule", "replaced"), ("remove", "removed")])
def test_a_due_moment_of_a_schedule_that_is_replaced_is_recorded(world, change, cause):
    job = world.add()
    world.pass_time(3 * MINUTE)
    if change == "remove":
        world.remove(job)
    else:
        world.update(job, {"schedule": HOURLY})
    assert world.summary(job) == [("skipped", cause, MINUTE, 1, 3)]
    assert world.claim() == []


def test_a_retry_waits_until_its_job_is_resumed(world):
    job = world.with_retry()
    world.pause(job)
    assert world.history(job)[1].waits_for == "pause"
    world.pass_time(2 * HOUR)
    assert world.claim() == []
    world.resume(job)
    run = world.claim_one()
    assert (run.trigger, run.scheduled_at) == ("retry", T0 + HOUR)
    world.finish(run)
    assert world.view(job).next_run_at == from_millis(T0 + 4 * HOUR)


def test_the_retry_of_a_run_that_failed_while_its_job_was_paused_waits_too(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.claim_one()
    world.pause(job)
    world.finish(run, FAILURE)
    world.pass_time(MINUTE)
    assert world.claim() == []
    world.resume(job)
    assert world.claim_one().trigger == "retry"


def test_a_requested_run_starts_although_its_job_is_paused(world):
    job = world.with_retry()
    world.pause(job)
    world.request(job)
    run = world.claim_one()
    world.finish(run, FAILURE)
    world.pass_time(30 * SECOND)
    world.finish(world.claim_one())
    assert world.history(job)[1].waits_for == "pause"
    assert world.job(job).enabled == 0


def test_a_requested_run_starts_although_a_paused_run_waited_for_the_session(world):
    holder, job = world.add(HOURLY, **MAIN), world.add(**MAIN)
    world.request(holder)
    running = world.claim_one()
    world.pass_time(MINUTE)
    world.claim()
    world.pause(job)
    world.finish(running)
    world.request(job)
    requested = world.claim_one()
    assert (requested.job_id, requested.manual) == (job, 1)
    world.resume(job)
    assert world.claim() == []
    world.finish(requested)
    assert world.claim_one().scheduled_at == T0 + MINUTE


def test_pausing_releases_the_run_that_waits_for_one_that_has_not_started(world):
    job = world.add(at(T0 + 20 * SECOND), **MAIN)
    holder = world.add(HOURLY, **MAIN)
    world.request(job)
    world.finish(world.claim_one(), FAILURE)
    world.request(holder)
    running = world.claim_one()
    world.pass_time(20 * SECOND)
    world.claim()
    world.pass_time(10 * SECOND)
    world.claim()
    world.pause(job)
    world.finish(running)
    assert world.claim_one().manual == 1


def test_a_one_shot_whose_moment_passed_while_paused_cannot_be_resumed(world):
    job = world.add(at(T0 + HOUR))
    world.pause(job)
    world.pass_time(HOUR)
    with pytest.raises(InvalidJob):
        world.resume(job)
    assert world.job(job).enabled == 0
    world.update(job, {"schedule": at(T0 + 2 * HOUR)})
    world.resume(job)
    world.pass_time(HOUR)
    assert world.claim_one().scheduled_at == T0 + 2 * HOUR


def test_a_one_shot_that_is_resumed_in_time_runs(world):
    job = world.add(at(T0 + HOUR))
    world.pause(job)
    world.pass_time(MINUTE)
    world.resume(job)
    world.pass_time(HOUR)
    assert world.claim_one().job_id == job


@pytest.mark.parametrize("requested", [False, True])
def test_a_done_one_shot_cannot_be_resumed(world, requested):
    job = world.add(at(T0))
    world.finish(world.claim_one())
    if requested:
        world.request(job)
    with pytest.raises(InvalidJob):
        world.resume(job)


def test_a_one_shot_that_waits_for_its_retry_can_be_paused_and_resumed(world):
    job = world.add(at(T0))
    world.finish(world.claim_one(), FAILURE)
    world.pause(job)
    world.pass_time(HOUR)
    world.resume(job)
    world.finish(world.claim_one())
    assert world.job(job).enabled == 0


def test_a_new_schedule_enables_a_done_one_shot(world):
    job = world.add(at(T0))
    world.finish(world.claim_one())
    world.update(job, {"schedule": OneShot("2026-03-02T09:00")})
    assert (world.job(job).enabled, world.job(job).next_run_at) == (1, T0 + 9 * HOUR)
