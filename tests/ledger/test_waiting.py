"""Runs that wait for a session or their job, requested runs, cancelling, and finishes that come too late."""

from __future__ import annotations

import pytest

from cronactors.errors import JobBusy, RunClosed, RunNotFound
from cronactors.ledger.cancel_other import cancel_overlapped
from cronactors.ledger.runs import find_run
from cronactors.model import Overlap, SessionMode
from cronactors.schedules.schedule import Cron, Interval
from tests.ledger_world import (
    CANCELLED,
    FAILURE,
    HOUR,
    HOURLY,
    MINUTE,
    SECOND,
    SUCCESS,
    T0,
    at,
)

MAIN = {"session_mode": SessionMode.MAIN, "user_id": "ann"}


# Main sessions


def test_runs_of_one_main_session_never_overlap_and_each_finish_releases_one(world):
    jobs = [world.add(at(T0 + n * SECOND), **MAIN) for n in range(4)]
    other = world.add(at(T0), session_mode=SessionMode.MAIN, user_id="bob")
    world.pass_time(MINUTE)
    started = [claimed.run for claimed in world.claim()]
    assert {run.job_id for run in started} == {jobs[0], other}
    (run,) = [run for run in started if run.job_id == jobs[0]]
    for job in jobs[1:]:
        (waiting,) = world.history(job)
        assert (waiting.status, waiting.waits_for, waiting.owner) == ("pending", "session:ann", None)
        assert world.job(job).held_by == waiting.id
    for job in jobs[1:]:
        assert world.claim() == []
        world.finish(run)
        run = world.claim_one()
        assert run.job_id == job
    world.finish(run)
    assert [summary[0] for job in jobs for summary in world.summary(job)] == ["success"] * 4


def test_a_run_that_waits_for_its_session_takes_no_slot(world):
    first, second = world.add(HOURLY, **MAIN), world.add(HOURLY, **MAIN)
    third = world.add(HOURLY)
    world.pass_time(HOUR)
    assert [claimed.run.job_id for claimed in world.claim(limit=2)] == [first, third]
    assert world.history(second)[0].status == "pending"


def test_moments_that_pass_while_a_run_waits_for_its_session_make_one_late_run(world):
    busy, job = world.add(HOURLY, **MAIN), world.add(**MAIN)
    world.request(busy)
    holder = world.claim_one()
    world.pass_time(5 * MINUTE)
    assert world.claim() == []
    world.pass_time(5 * MINUTE)
    world.finish(holder)
    first = world.claim_one()
    assert (first.job_id, first.scheduled_at, first.coalesced) == (job, T0 + 5 * MINUTE, 5)
    world.finish(first)
    late = world.claim_one()
    assert (late.scheduled_at, late.coalesced) == (T0 + 10 * MINUTE, 5)


def test_a_retry_waits_for_its_session(world):
    failing, other = world.add(at(T0), **MAIN), world.add(at(T0 + 20 * SECOND), **MAIN)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(30 * SECOND)
    started = world.claim_one()
    assert started.job_id == other
    assert world.history(failing)[1].waits_for == "session:ann"
    world.finish(started)
    assert world.claim_one().job_id == failing


@pytest.mark.parametrize("act", ["cancel", "pause", "remove", "update"])
def test_a_cancelled_run_that_was_next_for_its_session_releases_the_next_one(world, act):
    holder, next_, last = (world.add(at(T0 + n * SECOND), **MAIN) for n in range(3))
    world.pass_time(MINUTE)
    world.finish(world.claim_one())
    (turn,) = world.history(next_)
    assert (turn.status, turn.waits_for) == ("pending", None)
    if act == "cancel":
        world.cancel(turn)
    elif act == "update":
        world.update(next_, {"schedule": HOURLY})
    else:
        getattr(world, act)(next_)
    assert world.claim_one().job_id == last
    assert world.summary(holder)[0][0] == "success"


@pytest.mark.parametrize("act", ["pause", "remove", "update"])
def test_a_job_whose_waiting_runs_are_cancelled_releases_the_next_one(world, act):
    holder = world.add(HOURLY, **MAIN)
    job = world.add(Interval(SECOND), overlap=Overlap.ALLOW_ALL, **MAIN)
    last = world.add(at(T0 + 10 * SECOND), **MAIN)
    world.request(holder)
    run = world.claim_one()
    for _ in range(3):
        world.pass_time(SECOND)
        world.claim()
    world.pass_time(10 * SECOND)
    world.claim()
    world.finish(run)  # the first of four runs of one job is next
    assert [waiting.waits_for for waiting in world.history(job)] == [None, *["session:ann"] * 3]
    if act == "update":
        world.update(job, {"schedule": HOURLY})
    else:
        getattr(world, act)(job)
    assert world.claim_one().job_id == last


def test_a_run_that_is_next_for_its_session_and_waits_for_its_job_releases_the_next_one(world):
    """Two runs of one job wait for its session: only a change of its overlap policy leads there."""
    holder = world.add(HOURLY, **MAIN)
    job = world.add(overlap=Overlap.ALLOW_ALL, **MAIN)
    world.request(holder)
    run = world.claim_one()
    world.pass_time(MINUTE)
    assert world.claim() == []
    world.update(job, {"overlap": Overlap.SKIP})
    world.pass_time(MINUTE)
    assert world.claim() == []
    assert [waiting.waits_for for waiting in world.history(job)] == ["session:ann", "session:ann"]
    world.finish(run)
    finished = []
    for _ in range(2):
        finished.append(world.claim_one())
        world.finish(finished[-1])
    assert {run.scheduled_at for run in finished} == {T0 + MINUTE, T0 + 2 * MINUTE}


# Requested runs


def test_a_requested_run_starts_now_and_moves_no_moment(world):
    job = world.add(HOURLY)
    world.pass_time(MINUTE)
    requested = world.request(job)
    assert (requested.status, requested.trigger, requested.scheduled_at, requested.manual) == ("pending", "manual", world.now, 1)
    run = world.claim_one()
    assert run.id == requested.id
    assert world.job(job).next_run_at == T0 + HOUR
    world.finish(run)
    assert world.job(job).enabled
    world.pass_time(HOUR)
    assert world.claim_one().scheduled_at == T0 + HOUR


def test_a_requested_run_follows_the_overlap_policy(world):
    job = world.add(HOURLY)
    world.request(job)
    with pytest.raises(JobBusy):
        world.request(job)
    run = world.claim_one()
    with pytest.raises(JobBusy):
        world.request(job)
    world.finish(run)
    world.request(job)
    free = world.add(HOURLY, overlap=Overlap.ALLOW_ALL)
    assert len({world.request(free).id for _ in range(3)}) == 3
    assert len(world.claim()) == 4


def test_a_requested_run_starts_beside_a_pending_retry(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.request(job)
    requested = world.claim_one()
    world.pass_time(30 * SECOND)
    assert world.claim() == []
    assert world.history(job)[1].waits_for == f"job:{job}"
    world.finish(requested)
    assert world.claim_one().trigger == "retry"


def test_a_cancelled_run_that_was_next_for_its_job_releases_the_next_one(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR - 10 * SECOND)
    world.request(job)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(10 * SECOND)
    world.finish(world.claim_one(), FAILURE)
    holder = world.start(job)
    world.pass_time(30 * SECOND)
    assert world.claim() == []
    first, second = [run for run in world.history(job) if run.waits_for == f"job:{job}"]
    world.finish(holder)
    assert [world.run(run).waits_for for run in (first, second)] == [None, f"job:{job}"]
    world.cancel(first)
    assert world.claim_one().id == second.id


def test_a_requested_run_is_retried_and_no_moment_replaces_it(world):
    job = world.add()
    requested = world.request(job)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(30 * SECOND)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(30 * SECOND)
    moment = world.claim_one()
    assert (moment.manual, moment.scheduled_at) == (0, T0 + MINUTE)
    world.finish(moment)
    world.pass_time(30 * SECOND)
    retry = world.claim_one()
    assert (retry.manual, retry.attempt, retry.scheduled_at) == (1, 3, requested.scheduled_at)


def test_a_run_of_a_done_one_shot_can_be_requested(world):
    job = world.add(at(T0))
    world.finish(world.claim_one())
    world.request(job)
    world.finish(world.claim_one())
    assert [summary[0] for summary in world.summary(job)] == ["success", "success"]
    assert world.job(job).enabled == 0


# Cancelling


def test_a_pending_run_is_cancelled_at_once(world):
    job = world.add(HOURLY)
    requested = world.request(job)
    finished = world.cancel(requested)
    assert (finished.status, finished.cause, finished.started_at) == ("cancelled", "cancelled", None)
    assert world.claim() == []
    world.request(job)
    with pytest.raises(RunClosed):
        world.cancel(requested)


def test_a_retry_that_is_cancelled_decides_its_moment(world):
    job = world.add(at(T0))
    world.finish(world.claim_one(), FAILURE)
    world.cancel(world.history(job)[1])
    assert world.job(job).enabled == 0
    assert world.view(job).retry_at is None


def test_cancelling_a_run_that_waits_for_its_session_leaves_its_job_enabled(world):
    holder, job = world.add(HOURLY, **MAIN), world.add(**MAIN)
    world.request(holder)
    world.claim_one()
    world.pass_time(MINUTE)
    world.claim()
    world.cancel(world.history(job)[0])
    assert world.job(job).held_by is None
    world.pass_time(MINUTE)
    world.claim()
    assert world.summary(job)[1] == ("pending", None, 2 * MINUTE, 1, 1)


def test_cancelling_a_running_run_only_stores_the_request(world):
    world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.claim_one()
    assert world.cancel(run).cancel_requested == 1
    row = world.run(run)
    assert (row.status, row.cancel_requested) == ("running", 1)
    world.finish(run, CANCELLED)
    assert world.claim() == []
    with pytest.raises(RunClosed):
        world.cancel(run)


@pytest.mark.parametrize("run_id", ["0", "12345", "-1", "1.0", "x", "", "٣", "9" * 30])
def test_runs_that_do_not_exist_are_not_found(world, run_id):
    with pytest.raises(RunNotFound):
        world.do(find_run, run_id)


# Finishes that come twice or too late


def test_a_finish_is_idempotent(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.claim_one()
    first = world.finish(run, FAILURE)
    summary = world.summary(job)
    again = world.finish(run, FAILURE)
    assert first is not None
    assert again == world.run(run) == first
    assert world.summary(job) == summary
    assert world.finish(run, SUCCESS) is None
    assert world.summary(job) == summary


def test_a_finish_has_no_effect_after_another_owner_took_the_run_over(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    owner = world.owner
    run = world.claim_one()
    world.crash()
    again = world.claim_one()
    assert world.finish(run, owner=owner) is None
    assert world.finish(again, owner=owner) is None
    assert [summary[:2] for summary in world.summary(job)] == [("failed", "interrupted"), ("running", None)]
    with pytest.raises(RunClosed):
        world.finish_own(run)
    assert world.finish(again) is not None


def test_a_finish_of_a_run_that_does_not_exist_has_no_effect(world):
    run = world.request(world.add(Cron("@daily")))._replace(id=99)
    assert world.finish(run) is None


def test_a_run_never_finishes_before_it_started_though_the_clock_was_set_back(world):
    world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.claim_one()
    world.set_back(HOUR)
    finished = world.finish(run)
    assert finished == world.run(run)
    assert finished.completed_at == finished.started_at == T0 + HOUR


def test_a_request_replaces_a_retry_that_holds_the_job(world):
    main = {"session_mode": SessionMode.MAIN}
    job = world.add(HOURLY, overlap=Overlap.BUFFER_ONE, **main)
    other = world.add(at(T0 + 20 * SECOND), **main)
    world.request(job)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(20 * SECOND)
    busy = world.claim_one()
    assert busy.job_id == other
    world.pass_time(20 * SECOND)
    assert world.claim() == []  # the retry waits for the session, and holds its job
    assert world.job(job).held_by is not None
    world.finish(busy)
    requested = world.request(job)
    assert world.job(job).held_by is None
    assert world.claim_one().id == requested.id


def test_a_run_that_replaces_another_keeps_its_order_for_the_session(world):
    first = world.add(at(T0 + SECOND), **MAIN)
    often = world.add(overlap=Overlap.CANCEL_OTHER, **MAIN)
    later = world.add(at(T0 + 90 * SECOND), **MAIN)
    world.pass_time(SECOND)
    running = world.claim_one()
    assert running.job_id == first
    for _ in range(2):
        world.pass_time(MINUTE)
        world.do(cancel_overlapped)
        assert world.claim() == []
    assert world.summary(often) == [("cancelled", "replaced", MINUTE, 1, 1), ("pending", None, 2 * MINUTE, 1, 1)]
    world.finish(running)
    assert world.claim_one().scheduled_at == T0 + 2 * MINUTE
    assert [summary[0] for summary in world.summary(later)] == ["pending"]
