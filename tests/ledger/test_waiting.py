"""Main sessions and their lines, runs asked for, cancelling, and the fences round the end of a run."""

from __future__ import annotations

from contextlib import closing

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
    KINDS,
    MINUTE,
    SECOND,
    SUCCESS,
    T0,
    World,
    at,
)

MAIN = {"session_mode": SessionMode.MAIN, "user_id": "ann"}


@pytest.fixture(params=KINDS)
def world(request):
    with closing(World(request.param)) as made:
        yield made


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


def test_who_leaves_the_line_of_his_job_when_it_was_his_turn_lets_the_next_go(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR - 10 * SECOND)
    world.request(job)
    world.finish(world.begin(), FAILURE)
    world.pass_time(10 * SECOND)
    world.finish(world.begin(), FAILURE)
    holder = world.start(job)
    world.pass_time(30 * SECOND)
    assert world.claim() == []
    first, second = [run for run in world.history(job) if run.waits_for == f"job:{job}"]
    world.finish(holder)
    assert [world.run(run).waits_for for run in (first, second)] == [None, f"job:{job}"]
    world.cancel(first)
    assert world.begin().id == second.id


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
    assert world.cancel(run).cancel_requested == 1
    row = world.run(run)
    assert (row.status, row.cancel_requested) == ("running", 1)
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
    run = world.request(world.add(Cron("@daily")))._replace(id=99)
    assert world.finish(run) is None


def test_a_run_that_was_told_its_end_before_the_clock_went_back_ends_no_sooner_than_it_began(world):
    world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.begin()
    world.set_back(HOUR)
    ended = world.finish(run)
    assert ended == world.run(run)
    assert ended.completed_at == ended.started_at == T0 + HOUR


def test_a_request_takes_the_place_of_a_retry_that_holds_the_job(world):
    main = {"session_mode": SessionMode.MAIN}
    job = world.add(HOURLY, overlap=Overlap.BUFFER_ONE, **main)
    other = world.add(at(T0 + 20 * SECOND), **main)
    world.request(job)
    world.finish(world.begin(), FAILURE)
    world.pass_time(20 * SECOND)
    busy = world.begin()
    assert busy.job_id == other
    world.pass_time(20 * SECOND)
    assert world.claim() == []  # the retry waits for the session, and holds its job
    assert world.job(job).held_by is not None
    world.finish(busy)
    asked = world.request(job)
    assert world.job(job).held_by is None
    assert world.begin().id == asked.id


def test_a_job_that_cancels_its_other_keeps_its_place_in_the_line_of_the_session(world):
    first = world.add(at(T0 + SECOND), **MAIN)
    often = world.add(overlap=Overlap.CANCEL_OTHER, **MAIN)
    later = world.add(at(T0 + 90 * SECOND), **MAIN)
    world.pass_time(SECOND)
    running = world.begin()
    assert running.job_id == first
    for _ in range(2):
        world.pass_time(MINUTE)
        world.do(cancel_overlapped)
        assert world.claim() == []
    assert world.told(often) == [("cancelled", "replaced", MINUTE, 1, 1), ("pending", None, 2 * MINUTE, 1, 1)]
    world.finish(running)
    assert world.begin().scheduled_at == T0 + 2 * MINUTE
    assert [told[0] for told in world.told(later)] == ["pending"]
