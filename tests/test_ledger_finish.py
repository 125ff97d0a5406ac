"""The end of a run: retries, overlapped moments, one-shots, main sessions and their lines, runs asked for, cancelling, fences."""

from __future__ import annotations

import attrs
import pytest

from cronactors.errors import JobBusy, RunClosed, RunNotFound
from cronactors.ledger.runs import find_run
from cronactors.model import Overlap, SessionMode
from cronactors.schedule import Cron, Interval
from cronactors.spec import RetryPolicy
from tests.ledger_world import (
    CANCELLED,
    FAILURE,
    GAVE_UP,
    HOUR,
    HOURLY,
    INTERRUPTED,
    KINDS,
    MINUTE,
    SECOND,
    SUCCESS,
    T0,
    TIMEOUT,
    World,
    at,
)

MAIN = {"session_mode": SessionMode.MAIN, "user_id": "ann"}


@pytest.fixture(params=KINDS)
def world(request):
    return World(request.param)


# Overlap


def test_moments_that_overlapped_are_one_skipped_row(world):
    job = world.add()
    world.pass_time(MINUTE)
    run = world.begin()
    world.pass_time(3 * MINUTE + 1)
    assert world.claim() == []
    assert world.told(job) == [("running", None, MINUTE, 1, 1)]
    world.finish(run)
    assert world.told(job) == [("success", None, MINUTE, 1, 1), ("skipped", "overlap", 2 * MINUTE, 1, 3)]
    (skipped,) = world.history(job)[1:]
    assert (skipped.started_at, skipped.completed_at, skipped.error) == (None, world.now, None)
    assert world.job(job).next_run_at == T0 + 5 * MINUTE


def test_a_moment_at_the_very_end_of_a_run_overlapped(world):
    job = world.add()
    world.pass_time(MINUTE)
    run = world.begin()
    world.pass_time(MINUTE)
    world.finish(run)
    assert world.told(job)[1] == ("skipped", "overlap", 2 * MINUTE, 1, 1)
    assert world.claim() == []


def test_moments_that_were_late_before_the_run_began_are_not_skipped(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR - 1)
    asked = world.request(job)
    world.pass_time(2 * HOUR)
    (claimed,) = world.claim()  # both are due; the run asked for stands before the moments
    assert claimed.run.id == asked.id
    world.pass_time(HOUR)
    world.finish(claimed.run)
    late = world.begin()
    assert (late.scheduled_at, late.coalesced) == (T0 + 3 * HOUR, 3)


def test_a_run_asked_for_overlaps_like_any_other(world):
    job = world.add()
    world.request(job)
    asked = world.begin()
    world.pass_time(2 * MINUTE)
    world.finish(asked)
    assert world.told(job)[1:] == [("skipped", "overlap", MINUTE, 1, 2)]


# Retries


def test_the_whole_schedule_of_retries(world):
    job = world.add(at(T0), max_retries=6)
    waits = []
    for attempt in range(1, 8):
        run = world.begin()
        assert (run.attempt, run.failures, run.scheduled_at) == (attempt, attempt - 1, T0)
        assert run.trigger == ("schedule" if attempt == 1 else "retry")
        before = world.now
        world.finish(run, TIMEOUT if attempt % 2 else FAILURE)
        view = world.view(job)
        assert view.last_error == ("timed out" if attempt % 2 else "boom")
        if view.retry_at is None:
            break
        assert view.retry_count == attempt
        ready = world.do(lambda storage: storage.next_due())
        world.now = ready - 1
        assert world.claim() == []
        world.now = ready
        waits.append((ready - before) // SECOND)
    assert waits == [30, 60, 300, 900, 3600, 3600]
    view = world.view(job)
    assert (view.enabled, view.retry_count, view.retry_at, view.last_error) == (False, 0, None, "timed out")
    assert [told[:2] for told in world.told(job)] == [("failed", "timeout"), ("failed", "error")] * 3 + [("failed", "timeout")]


def test_a_new_moment_replaces_a_pending_retry_and_begins_with_a_new_budget(world):
    job = world.add(Interval(20 * SECOND))
    world.pass_time(20 * SECOND)
    world.finish(world.begin(), FAILURE)
    world.pass_time(20 * SECOND)
    run = world.begin()
    assert (run.attempt, run.failures, run.scheduled_at) == (1, 0, T0 + 40 * SECOND)
    assert world.told(job) == [
        ("failed", "error", 20 * SECOND, 1, 1),
        ("cancelled", "replaced", 20 * SECOND, 2, 1),
        ("running", None, 40 * SECOND, 1, 1),
    ]
    assert world.view(job).retry_count == 0


def test_a_success_clears_the_state_of_retries(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.begin(), FAILURE)
    world.pass_time(30 * SECOND)
    retry = world.begin()
    assert world.view(job).retry_count == 1
    world.finish(retry)
    view = world.view(job)
    assert (view.retry_count, view.retry_at, view.last_error, view.enabled) == (0, None, None, True)
    assert view.last_run_at is not None
    assert world.told(job) == [("failed", "error", HOUR, 1, 1), ("success", None, HOUR, 2, 1)]


def test_a_retry_stands_for_as_many_moments_as_the_first_attempt(world):
    world.add()
    world.pass_time(5 * MINUTE)
    world.finish(world.begin(), FAILURE)
    world.pass_time(30 * SECOND)
    assert world.begin().coalesced == 5


def test_giving_up_spends_no_retries(world):
    job = world.add(HOURLY, max_retries=5)
    world.pass_time(HOUR)
    world.finish(world.begin(), GAVE_UP)
    assert world.told(job) == [("failed", "gave_up", HOUR, 1, 1)]
    assert (world.view(job).retry_at, world.view(job).last_error) == (None, "no use")
    assert world.view(job).enabled


def test_the_executor_may_choose_the_delay(world):
    world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.begin(), attrs.evolve(FAILURE, retry_after=7.5))
    assert world.do(lambda storage: storage.next_due()) == world.now + 7_500


def test_delays_and_jitter_are_those_of_the_scheduler(world):
    world.policy = RetryPolicy((10,), jitter=1.0)
    world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.begin(), attrs.evolve(FAILURE, spread=0.5))
    assert world.do(lambda storage: storage.next_due()) == world.now + 15_000


def test_moments_during_a_retry_are_skipped_and_its_own_retry_stays(world):
    job = world.add()
    world.pass_time(MINUTE)
    world.finish(world.begin(), FAILURE)
    world.pass_time(30 * SECOND)
    retry = world.begin()
    world.pass_time(MINUTE)
    world.finish(retry, FAILURE)
    assert world.told(job)[1:] == [
        ("failed", "error", MINUTE, 2, 1),
        ("skipped", "overlap", 2 * MINUTE, 1, 1),
        ("pending", None, MINUTE, 3, 1),
    ]


# Interruptions


def test_an_interrupted_run_is_put_back_and_costs_no_retry(world):
    job = world.add(HOURLY, max_retries=1)
    world.pass_time(HOUR)
    for attempt in range(1, 6):
        run = world.begin()
        assert (run.attempt, run.failures) == (attempt, 0)
        assert run.trigger == ("schedule" if attempt == 1 else "recovery")
        world.finish(run, INTERRUPTED)
    assert world.view(job).retry_count == 0
    world.finish(world.begin(), FAILURE)
    assert world.view(job).retry_count == 1


def test_an_interrupted_retry_keeps_the_failures_behind_it(world):
    world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.begin(), FAILURE)
    world.pass_time(30 * SECOND)
    world.finish(world.begin(), INTERRUPTED)
    again = world.begin()
    assert (again.attempt, again.failures, again.trigger) == (3, 1, "recovery")


# The end of a job


def test_a_one_shot_that_succeeded_is_kept_and_disabled(world):
    job = world.add(at(T0 + HOUR))
    world.pass_time(HOUR)
    run = world.begin()
    assert world.job(job).enabled
    world.finish(run)
    row = world.job(job)
    assert (row.enabled, row.next_run_at, row.held_by) == (0, None, None)


@pytest.mark.parametrize(("outcome", "gone"), [(SUCCESS, True), (GAVE_UP, True), (CANCELLED, True), (INTERRUPTED, False)])
def test_a_one_shot_to_be_deleted_goes_once_its_moment_is_decided(world, outcome, gone):
    job = world.add(at(T0), delete_after_run=True)
    world.finish(world.begin(), outcome)
    assert world.exists(job) is not gone
    assert world.told(job)[0] == (outcome.status, outcome.cause, 0, 1, 1)


def test_a_one_shot_to_be_deleted_goes_when_its_retries_are_spent(world):
    job = world.add(at(T0), delete_after_run=True, max_retries=1)
    world.finish(world.begin(), FAILURE)
    assert world.exists(job)
    world.pass_time(30 * SECOND)
    world.finish(world.begin(), FAILURE)
    assert not world.exists(job)
    assert [told[0] for told in world.told(job)] == ["failed", "failed"]


def test_a_one_shot_that_its_file_lists_is_disabled_instead_of_deleted(world):
    spec = world.spec(at(T0), delete_after_run=True)
    (job,) = world.upsert(spec, origin="agent.toml")
    world.finish(world.begin())
    assert world.job(job).enabled == 0
    assert world.upsert(spec, origin="agent.toml") == [job]
    assert world.job(job).enabled == 0
    assert world.claim() == []
    world.upsert(origin="agent.toml")
    assert not world.exists(job)


def test_a_recurring_job_to_be_deleted_goes_after_its_first_moment(world):
    job = world.add(delete_after_run=True)
    world.request(job)
    world.finish(world.begin())
    assert world.exists(job)  # a run that was asked for is no moment
    world.pass_time(MINUTE)
    run = world.begin()
    world.pass_time(5 * MINUTE)
    world.finish(run)
    assert not world.exists(job)
    assert world.told(job)[1:] == [("success", None, MINUTE, 1, 1), ("skipped", "overlap", 2 * MINUTE, 1, 5)]
    world.pass_time(HOUR)
    assert world.claim() == []


def test_a_recurring_job_to_be_deleted_outlives_a_cancelled_moment(world):
    job = world.add(delete_after_run=True)
    world.pass_time(MINUTE)
    world.finish(world.begin(), CANCELLED)
    assert world.exists(job)


# Main sessions


def test_runs_of_one_main_session_never_overlap_and_each_end_frees_one(world):
    jobs = [world.add(at(T0 + n * SECOND), **MAIN) for n in range(4)]
    other = world.add(at(T0), session_mode=SessionMode.MAIN, user_id="bob")
    world.pass_time(MINUTE)
    begun = [claimed.run for claimed in world.claim()]
    assert {run.job_id for run in begun} == {jobs[0], other}
    (run,) = [run for run in begun if run.job_id == jobs[0]]
    for job in jobs[1:]:
        (waiting,) = world.history(job)
        assert (waiting.status, waiting.waits_for, waiting.owner) == ("pending", "session:ann", None)
        assert world.job(job).held_by == waiting.id
    for job in jobs[1:]:
        assert world.claim() == []
        world.finish(run)
        run = world.begin()
        assert run.job_id == job
    world.finish(run)
    assert [told[0] for job in jobs for told in world.told(job)] == ["success"] * 4


def test_a_run_that_waits_for_its_session_holds_no_slot(world):
    first, second = world.add(HOURLY, **MAIN), world.add(HOURLY, **MAIN)
    third = world.add(HOURLY)
    world.pass_time(HOUR)
    assert [claimed.run.job_id for claimed in world.claim(limit=2)] == [first, third]
    assert world.history(second)[0].status == "pending"


def test_moments_that_pass_while_a_run_waits_for_its_session_make_one_late_run(world):
    busy, job = world.add(HOURLY, **MAIN), world.add(**MAIN)
    world.request(busy)
    holder = world.begin()
    world.pass_time(5 * MINUTE)
    assert world.claim() == []
    world.pass_time(5 * MINUTE)
    world.finish(holder)
    first = world.begin()
    assert (first.job_id, first.scheduled_at, first.coalesced) == (job, T0 + 5 * MINUTE, 5)
    world.finish(first)
    late = world.begin()
    assert (late.scheduled_at, late.coalesced) == (T0 + 10 * MINUTE, 5)


def test_a_retry_joins_the_line_of_its_session(world):
    failing, other = world.add(at(T0), **MAIN), world.add(at(T0 + 20 * SECOND), **MAIN)
    world.finish(world.begin(), FAILURE)
    world.pass_time(30 * SECOND)
    begun = world.begin()
    assert begun.job_id == other
    assert world.history(failing)[1].waits_for == "session:ann"
    world.finish(begun)
    assert world.begin().job_id == failing


@pytest.mark.parametrize("act", ["cancel", "pause", "remove", "update"])
def test_who_leaves_the_line_when_it_was_his_turn_lets_the_next_go(world, act):
    holder, next_, last = (world.add(at(T0 + n * SECOND), **MAIN) for n in range(3))
    world.pass_time(MINUTE)
    world.finish(world.begin())
    (turn,) = world.history(next_)
    assert (turn.status, turn.waits_for) == ("pending", None)
    if act == "cancel":
        world.cancel(turn)
    elif act == "update":
        world.update(next_, {"schedule": HOURLY})
    else:
        getattr(world, act)(next_)
    assert world.begin().job_id == last
    assert world.told(holder)[0][0] == "success"


@pytest.mark.parametrize("act", ["pause", "remove", "update"])
def test_a_job_that_leaves_the_line_with_several_runs_lets_the_next_go(world, act):
    holder = world.add(HOURLY, **MAIN)
    job = world.add(Interval(SECOND), overlap=Overlap.ALLOW_ALL, **MAIN)
    last = world.add(at(T0 + 10 * SECOND), **MAIN)
    world.request(holder)
    run = world.begin()
    for _ in range(3):
        world.pass_time(SECOND)
        world.claim()
    world.pass_time(10 * SECOND)
    world.claim()
    world.finish(run)  # it is the turn of the first of four runs of one job
    assert [waiting.waits_for for waiting in world.history(job)] == [None, *["session:ann"] * 3]
    if act == "update":
        world.update(job, {"schedule": HOURLY})
    else:
        getattr(world, act)(job)
    assert world.begin().job_id == last


def test_a_run_of_a_session_whose_job_is_busy_passes_its_turn_on(world):
    """Only an overlap policy that was changed leads there: two runs of one job in the line of its session."""
    holder = world.add(HOURLY, **MAIN)
    job = world.add(overlap=Overlap.ALLOW_ALL, **MAIN)
    world.request(holder)
    run = world.begin()
    world.pass_time(MINUTE)
    assert world.claim() == []
    world.update(job, {"overlap": Overlap.SKIP})
    world.pass_time(MINUTE)
    assert world.claim() == []
    assert [waiting.waits_for for waiting in world.history(job)] == ["session:ann", "session:ann"]
    world.finish(run)
    ended = []
    for _ in range(2):
        ended.append(world.begin())
        world.finish(ended[-1])
    assert {run.scheduled_at for run in ended} == {T0 + MINUTE, T0 + 2 * MINUTE}


# Runs asked for


def test_a_run_asked_for_starts_now_and_moves_no_moment(world):
    job = world.add(HOURLY)
    world.pass_time(MINUTE)
    asked = world.request(job)
    assert (asked.status, asked.trigger, asked.scheduled_at, asked.manual) == ("pending", "manual", world.now, 1)
    run = world.begin()
    assert run.id == asked.id
    assert world.job(job).next_run_at == T0 + HOUR
    world.finish(run)
    assert world.job(job).enabled
    world.pass_time(HOUR)
    assert world.begin().scheduled_at == T0 + HOUR


def test_a_run_asked_for_obeys_overlap(world):
    job = world.add(HOURLY)
    world.request(job)
    with pytest.raises(JobBusy):
        world.request(job)
    run = world.begin()
    with pytest.raises(JobBusy):
        world.request(job)
    world.finish(run)
    world.request(job)
    free = world.add(HOURLY, overlap=Overlap.ALLOW_ALL)
    assert len({world.request(free).id for _ in range(3)}) == 3
    assert len(world.claim()) == 4


def test_a_run_asked_for_beside_a_pending_retry(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.begin(), FAILURE)
    world.request(job)
    asked = world.begin()
    world.pass_time(30 * SECOND)
    assert world.claim() == []
    assert world.history(job)[1].waits_for == f"job:{job}"
    world.finish(asked)
    assert world.begin().trigger == "retry"


def test_a_run_asked_for_is_tried_again_and_no_moment_replaces_it(world):
    job = world.add()
    asked = world.request(job)
    world.finish(world.begin(), FAILURE)
    world.pass_time(30 * SECOND)
    world.finish(world.begin(), FAILURE)
    world.pass_time(30 * SECOND)
    moment = world.begin()
    assert (moment.manual, moment.scheduled_at) == (0, T0 + MINUTE)
    world.finish(moment)
    world.pass_time(30 * SECOND)
    retry = world.begin()
    assert (retry.manual, retry.attempt, retry.scheduled_at) == (1, 3, asked.scheduled_at)


def test_a_run_asked_for_of_a_done_one_shot(world):
    job = world.add(at(T0))
    world.finish(world.begin())
    world.request(job)
    world.finish(world.begin())
    assert [told[0] for told in world.told(job)] == ["success", "success"]
    assert world.job(job).enabled == 0


# Cancelling


def test_a_pending_run_is_cancelled_at_once(world):
    job = world.add(HOURLY)
    asked = world.request(job)
    ended = world.cancel(asked)
    assert (ended.status, ended.cause, ended.started_at) == ("cancelled", "cancelled", None)
    assert world.claim() == []
    world.request(job)
    with pytest.raises(RunClosed):
        world.cancel(asked)


def test_a_retry_that_is_cancelled_decides_its_moment(world):
    job = world.add(at(T0))
    world.finish(world.begin(), FAILURE)
    world.cancel(world.history(job)[1])
    assert world.job(job).enabled == 0
    assert world.view(job).retry_at is None


def test_a_run_that_waits_for_its_session_is_cancelled_and_its_job_goes_on(world):
    holder, job = world.add(HOURLY, **MAIN), world.add(**MAIN)
    world.request(holder)
    world.begin()
    world.pass_time(MINUTE)
    world.claim()
    world.cancel(world.history(job)[0])
    assert world.job(job).held_by is None
    world.pass_time(MINUTE)
    world.claim()
    assert world.told(job)[1] == ("pending", None, 2 * MINUTE, 1, 1)


def test_a_running_run_is_only_asked_to_end(world):
    world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.begin()
    assert world.cancel(run).cancel_asked == 1
    row = world.run(run)
    assert (row.status, row.cancel_asked) == ("running", 1)
    world.finish(run, CANCELLED)
    assert world.claim() == []
    with pytest.raises(RunClosed):
        world.cancel(run)


@pytest.mark.parametrize("run_id", ["0", "12345", "-1", "1.0", "x", "", "٣", "9" * 30])
def test_runs_that_do_not_exist(world, run_id):
    with pytest.raises(RunNotFound):
        world.do(find_run, run_id)


# Fences


def test_a_finish_is_idempotent(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.begin()
    first = world.finish(run, FAILURE)
    told = world.told(job)
    again = world.finish(run, FAILURE)
    assert first is not None
    assert again == world.run(run) == first
    assert world.told(job) == told
    assert world.finish(run, SUCCESS) is None
    assert world.told(job) == told


def test_a_finish_after_a_take_over_has_no_effect(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    owner = world.owner
    run = world.begin()
    world.crash()
    again = world.begin()
    assert world.finish(run, owner=owner) is None
    assert world.finish(again, owner=owner) is None
    assert [told[:2] for told in world.told(job)] == [("failed", "interrupted"), ("running", None)]
    with pytest.raises(RunClosed):
        world.complete(run)
    assert world.finish(again) is not None


def test_a_finish_of_what_never_was(world):
    run = attrs.evolve(world.request(world.add(Cron("@daily"))), id=99)
    assert world.finish(run) is None


def test_a_run_that_was_told_its_end_before_the_clock_went_back_ends_no_sooner_than_it_began(world):
    world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.begin()
    world.set_back(HOUR)
    ended = world.finish(run)
    assert ended == world.run(run)
    assert ended.completed_at == ended.started_at == T0 + HOUR
