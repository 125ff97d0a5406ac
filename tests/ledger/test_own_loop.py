"""Loops of a user's own: a shown moment or retry is claimed exactly once, and by id whatever is due."""

from __future__ import annotations

import pytest

from cronactors.errors import AlreadyClaimed, JobBusy, JobNotFound, RunClosed
from cronactors.model import Overlap, SessionMode
from cronactors.schedules.schedule import Interval
from tests.ledger_world import FAILURE, HOUR, HOURLY, MINUTE, MINUTELY, SECOND, T0, at


def test_a_shown_moment_is_claimed_exactly_once(world):
    job = world.add()
    assert world.due() == []
    world.pass_time(MINUTE)
    (shown,) = world.due()
    run = world.start(shown)
    assert (run.job_id, run.scheduled_at, run.trigger) == (job, T0 + MINUTE, "schedule")
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    world.finish_own(run)
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    world.pass_time(MINUTE)
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    assert len(world.history()) == 1


def test_a_shown_moment_of_a_job_that_was_changed_is_not_claimed(world):
    job = world.add()
    world.pass_time(MINUTE)
    (shown,) = world.due()
    world.update(job, {"schedule": HOURLY})
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    world.remove(job)
    with pytest.raises(JobNotFound):
        world.start(shown)


def test_a_shown_retry_is_claimed_exactly_once(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish_own(world.start(job), FAILURE)
    assert world.retries() == []
    world.pass_time(30 * SECOND)
    (shown,) = world.retries()
    assert world.due() == []
    run = world.start(shown)
    assert (run.trigger, run.attempt, run.scheduled_at) == ("retry", 2, T0 + HOUR)
    with pytest.raises(AlreadyClaimed):
        world.start(shown)


def test_a_job_with_a_due_retry_and_a_due_moment_is_shown_once_in_order_of_time(world):
    job = world.add()
    world.pass_time(MINUTE)
    world.finish_own(world.start(job), FAILURE)
    world.pass_time(MINUTE)
    assert world.due() == []
    (shown,) = world.retries()
    world.finish_own(world.start(shown))
    (shown,) = world.due()
    assert world.start(shown).scheduled_at == T0 + 2 * MINUTE


def test_by_id_a_due_run_is_claimed_or_else_an_extra_run_starts(world):
    job = world.add(HOURLY)
    extra = world.start(job)
    assert (extra.trigger, extra.manual, extra.status, extra.scheduled_at) == ("manual", 1, "running", T0)
    assert world.job(job).next_run_at == T0 + HOUR
    with pytest.raises(JobBusy):
        world.start(job)
    world.finish_own(extra)
    world.pass_time(HOUR)
    due = world.start(job)
    assert (due.trigger, due.scheduled_at) == ("schedule", T0 + HOUR)
    assert world.job(job).next_run_at == T0 + 2 * HOUR


def test_a_start_is_refused_without_a_trace_while_the_session_is_busy(world):
    one, two = (world.add(HOURLY, session_mode=SessionMode.MAIN) for _ in range(2))
    first = world.start(one)
    with pytest.raises(JobBusy):
        world.start(two)
    world.pass_time(HOUR)
    with pytest.raises(JobBusy):
        world.start(two)
    assert world.history(two) == []
    world.finish_own(first)
    assert world.start(two).scheduled_at == T0 + HOUR


def test_a_start_is_refused_while_the_session_is_busy_also_where_the_moment_replaces_a_retry(world):
    main = {"session_mode": SessionMode.MAIN}
    job = world.add(Interval(30 * SECOND), **main)
    world.pass_time(30 * SECOND)
    world.finish(world.claim_one(), FAILURE)  # its retry is due together with the next moment
    other = world.add(at(world.now + SECOND), **main)
    world.pass_time(SECOND)
    assert world.claim_one().job_id == other
    world.pass_time(29 * SECOND)
    shown = next(view for view in world.due() if view.id == job)
    with pytest.raises(JobBusy, match="main session is in use"):
        world.start(shown)


def test_extra_runs_of_one_millisecond_are_different_runs(world):
    job = world.add(HOURLY, overlap=Overlap.ALLOW_ALL)
    runs = [world.start(job) for _ in range(3)]
    assert [run.scheduled_at for run in runs] == [T0, T0 + 1, T0 + 2]


def test_a_run_of_an_own_loop_finishes_once(world):
    run = world.start(world.add(HOURLY))
    assert world.finish_own(run).status == "success"
    with pytest.raises(RunClosed):
        world.finish_own(run, FAILURE)
    assert world.run(run).status == "success"


def test_an_own_loop_gets_an_error_for_a_moment_that_was_decided_before_the_clock_was_set_back(world):
    job = world.add()
    world.pass_time(MINUTE)
    world.finish_own(world.start(job))
    world.set_back(MINUTE // 2)
    world.pass_time(MINUTE // 2)
    (shown,) = world.due()
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    world.pass_time(MINUTE)
    (shown,) = world.due()
    assert world.start(shown).scheduled_at == T0 + 2 * MINUTE


def test_an_own_loop_cannot_start_a_job_whose_schedule_cannot_be_read(world):
    job = world.add(MINUTELY)
    world.damage(job, schedule="nonsense")
    world.pass_time(MINUTE)
    (shown,) = world.due()
    with pytest.raises((JobBusy, AlreadyClaimed)) as refused:
        world.start(shown)
    assert "cannot be read" in str(refused.value)


@pytest.mark.parametrize("shown", [False, True])
def test_an_own_loop_starts_the_run_that_holds_its_job(world, shown):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    for _ in range(3):
        world.start(job)
        world.crash()
    held = world.job(job).held_by
    with pytest.raises(JobBusy):
        world.start(job)
    world.pass_time(30 * SECOND)
    (view,) = world.retries()
    run = world.start(view if shown else job)
    assert (run.id, run.attempt) == (held, 4)
    with pytest.raises(JobBusy):
        world.start(job)
