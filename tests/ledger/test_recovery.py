"""Recovery: interrupted runs of dead owners, crashes in a row, and runs whose cancellation was requested."""

from __future__ import annotations

import pytest

from cronactors.ledger.cancel_other import cancel_overlapped
from cronactors.ledger.leases import was_declared_dead
from cronactors.ledger.owners import sign_off
from cronactors.ledger.recovery import recover
from cronactors.model import Cause, Overlap, SessionMode
from cronactors.schedules.schedule import Interval
from tests.ledger_world import (
    DAY,
    FAILURE,
    HOUR,
    HOURLY,
    INTERRUPTED,
    MINUTE,
    SECOND,
    SUCCESS,
    T0,
    TIMEOUT,
    at,
    process,
)

# Crashes


def test_a_run_that_a_crash_interrupted_is_marked_and_retried(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.claim_one()
    world.pass_time(MINUTE)
    (finished,) = world.crash()
    assert (finished.id, finished.status, finished.cause, finished.completed_at) == (run.id, "failed", "interrupted", world.now)
    assert "process ended" in (finished.error or "")
    again = world.claim_one()
    assert (again.scheduled_at, again.attempt, again.trigger, again.failures) == (T0 + HOUR, 2, "recovery", 0)
    assert again.owner == world.owner != run.owner
    world.finish(again)
    assert [summary[:2] for summary in world.summary(job)] == [("failed", "interrupted"), ("success", None)]
    assert world.claim() == []
    assert world.job(job).crashes == 0


def test_moments_missed_while_no_scheduler_was_running_make_one_late_run_after_the_interrupted_one(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.claim_one()
    world.pass_time(3 * DAY)
    world.crash()
    world.finish(world.claim_one())
    late = world.claim_one()
    assert (late.scheduled_at, late.coalesced, late.attempt) == (T0 + 3 * DAY + HOUR, 72, 1)
    world.finish(late)
    assert [summary[0] for summary in world.summary(job)] == ["failed", "success", "success"]
    assert world.claim() == []


def test_an_orderly_interruption_does_not_count_as_a_crash(world):
    job = world.add(HOURLY, max_retries=0)
    world.pass_time(HOUR)
    for _ in range(2):
        world.claim_one()
        world.crash()
    world.finish(world.claim_one(), INTERRUPTED)
    assert world.job(job).crashes == 2
    assert world.claim_one().failures == 0


def test_after_crashes_an_orderly_interruption_still_costs_nothing(world):
    world.add(at(T0), max_retries=1)
    for _ in range(3):
        world.claim_one()
        world.crash()
    world.pass_time(30 * SECOND)
    for _ in range(3):
        run = world.claim_one()
        assert run.failures == 1
        world.finish(run, INTERRUPTED)


def test_from_the_third_crash_in_a_row_each_costs_a_retry_until_the_job_is_disabled(world):
    job = world.add(at(T0), max_retries=3)
    waits = []
    while world.job(job).enabled:
        before = world.now
        ready = world.do(lambda storage: storage.next_times().due)
        world.now = max(world.now, ready)
        waits.append((world.now - before) // SECOND)
        world.claim_one()
        world.crash()
    assert waits == [0, 0, 0, 30, 60, 300]
    row = world.job(job)
    assert row.crashes == 6
    assert "6 times in a row" in (row.last_error or "")
    assert world.claim() == []


@pytest.mark.parametrize("overlap", list(Overlap))
def test_new_moments_do_not_let_a_crash_loop_continue(world, overlap):
    job = world.add(Interval(SECOND), overlap=overlap)
    starts = 0
    while world.job(job).enabled and starts < 50:
        world.pass_time(SECOND)
        claimed = world.claim()
        starts += len(claimed)
        if claimed:
            world.crash()
    assert world.now - T0 > (30 + 60 + 300) * SECOND
    assert starts <= (6 if overlap is Overlap.SKIP else 15)  # several runs at once: a crash counts once
    row = world.job(job)
    assert (row.enabled, row.held_by) == (0, None)
    assert "times in a row" in (row.last_error or "")
    world.pass_time(HOUR)
    assert world.claim() == []
    world.resume(job)
    world.pass_time(SECOND)
    again = world.claim()
    assert again
    for claimed in again:
        world.finish(claimed.run)
    assert world.job(job).crashes == 0


def test_any_outcome_but_an_interruption_sets_the_count_of_crashes_back(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    for _ in range(2):
        world.claim_one()
        world.crash()
    assert world.job(job).crashes == 2
    world.finish(world.claim_one(), FAILURE)
    assert world.job(job).crashes == 0


def test_moments_of_a_job_that_was_disabled_by_crashes_are_recorded(world):
    job = world.add(max_retries=0)
    world.pass_time(MINUTE)
    for _ in range(2):
        world.claim_one()
        world.crash()
    world.claim_one()
    world.pass_time(2 * MINUTE)
    world.crash()
    assert world.job(job).enabled == 0
    assert world.summary(job)[-1] == ("skipped", "interrupted", 2 * MINUTE, 1, 2)


def test_a_crash_of_a_removed_job_is_only_marked(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.claim_one()
    world.remove(job)
    world.crash()
    assert world.summary(job) == [("failed", "interrupted", HOUR, 1, 1)]
    assert world.claim() == []


def test_a_crash_releases_the_session(world):
    main = {"session_mode": SessionMode.MAIN}
    first, second = world.add(at(T0), **main), world.add(at(T0 + 1), **main)
    world.pass_time(1)
    world.claim_one()
    world.crash()
    order = []
    for _ in range(2):
        order.append(world.claim_one())
        world.finish(order[-1])
    assert [run.job_id for run in order] == [first, second]


def test_the_retry_of_an_interrupted_run_of_a_paused_job_waits(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.claim_one()
    world.pause(job)
    world.crash()
    assert world.claim() == []
    assert world.history(job)[1].waits_for == "pause"
    world.resume(job)
    assert world.claim_one().trigger == "recovery"


# Owners


def test_only_the_runs_of_dead_owners_are_recovered(world):
    other = world.register(process("there"))
    jobs = [world.add() for _ in range(2)]
    world.pass_time(MINUTE)
    (mine,) = world.claim(limit=1)
    (theirs,) = world.claim(limit=1, owner=other)
    assert {mine.run.job_id, theirs.run.job_id} == set(jobs)
    assert world.recover() == []
    assert [run.id for run in world.crash()] == [mine.run.id]
    assert world.run(theirs.run).status == "running"


def test_a_run_that_a_closed_handle_left_open_is_no_crash(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    for attempt in (1, 2, 3, 4):
        assert world.claim_one().attempt == attempt
        world.do(sign_off, world.owner)
        world.owner = world.register(process("here"))
        assert [run.error for run in world.recover()] == ["interrupted: it was left open"]
    assert world.job(job).crashes == 0


@pytest.mark.parametrize("end", ["shutdown", "crash"])
def test_an_interrupted_run_whose_cancellation_was_requested_is_not_put_back(world, end):
    job = world.add(at(T0 + HOUR))
    world.pass_time(HOUR)
    run = world.claim_one()
    world.cancel(run)
    if end == "crash":
        world.crash()
    else:
        world.finish(run, INTERRUPTED)
    assert world.summary(job) == [("cancelled", "cancelled", HOUR, 1, 1)]
    assert world.claim() == []
    assert world.job(job).enabled == 0


@pytest.mark.parametrize("requested", ["cancelled", "replaced", None])
def test_an_interruption_that_is_reported_twice_is_stored_once(world, requested):
    """The runner reports it again, as after a commit whose answer was lost."""
    job = world.add(overlap=Overlap.CANCEL_OTHER)
    world.pass_time(MINUTE)
    run = world.claim_one()
    if requested == "replaced":
        world.pass_time(MINUTE)
        world.do(cancel_overlapped)
    elif requested == "cancelled":
        world.cancel(run)
    finished = world.finish(run, INTERRUPTED)
    assert finished is not None
    assert (finished.status, finished.cause) == (("failed", "interrupted") if requested is None else ("cancelled", requested))
    summary = world.summary(job)
    assert world.finish(run, INTERRUPTED) == finished
    assert world.finish(run, SUCCESS) is None
    assert world.summary(job) == summary


@pytest.mark.parametrize("end", [FAILURE, TIMEOUT])
def test_a_run_that_fails_after_its_cancellation_was_requested_is_not_retried(world, end):
    once = world.add(at(T0 + HOUR))
    often = world.add(HOURLY, delete_after_run=True)
    world.pass_time(HOUR)
    for claimed in world.claim():
        world.cancel(claimed.run)
        world.finish(claimed.run, end)
    for job in (once, often):
        assert world.summary(job) == [("failed", end.cause, HOUR, 1, 1)]
        assert world.job(job).last_error == end.error
    assert world.job(once).enabled == 0
    assert world.job(often).next_run_at == T0 + 2 * HOUR, "as if it had been cancelled in time"
    world.pass_time(MINUTE)
    assert world.claim() == []


def test_a_run_that_fails_after_it_was_to_be_replaced_is_not_retried(world):
    job = world.add(overlap=Overlap.CANCEL_OTHER, delete_after_run=True)
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pass_time(MINUTE)
    world.do(cancel_overlapped)
    world.finish(run, FAILURE)
    following = world.claim_one()
    assert following.scheduled_at == T0 + 2 * MINUTE
    world.finish(following, SUCCESS)
    assert not world.exists(job)


def test_a_moment_that_replaces_a_run_does_not_let_a_crash_loop_continue(world):
    job = world.add(overlap=Overlap.CANCEL_OTHER)
    for _ in range(200):
        world.pass_time(30 * SECOND)
        world.do(cancel_overlapped)
        if world.claim():
            world.crash()
    assert world.job(job).enabled == 0
    assert "times in a row" in (world.job(job).last_error or "")
    assert len([run for run in world.history(job) if run.started_at is not None]) == 6


# Owners that were killed while they were stopping


def test_a_kill_during_a_stop_is_no_crash(world):
    job_id = world.add(at(T0 + MINUTE), max_retries=0)
    world.pass_time(MINUTE)
    for attempt in range(1, 6):
        assert world.claim_one().attempt == attempt
        world.mark_stopping(world.owner)
        (run,) = world.crash()
        assert (run.status, run.cause) == ("failed", Cause.INTERRUPTED)
        assert run.error == "interrupted: its process was killed while it was stopping"
        assert (world.job(job_id).crashes, world.job(job_id).enabled) == (0, 1)
        assert world.storage.stopping_owners() == set()


def test_a_stop_mark_counts_only_for_its_own_owner(world):
    stops, crashes = world.add(at(T0 + MINUTE)), world.add(at(T0 + MINUTE))
    other = world.register(process("here"))
    world.pass_time(MINUTE)
    world.claim(limit=1)
    world.claim(limit=1, owner=other)
    world.mark_stopping(world.owner)
    world.crash()
    assert [world.job(job_id).crashes for job_id in (stops, crashes)] == [0, 1]


def test_a_stop_mark_is_removed_with_the_commit_that_recovers_and_not_before(world):
    world.add()
    world.pass_time(MINUTE)
    world.claim_one()
    world.mark_stopping(world.owner)
    this_process = process("here", 2)
    assert world.storage.begin(write=True)
    recover(world.storage, this_process, policy=world.policy, trust_leases=False)
    assert world.storage.stopping_owners() == {world.owner}
    world.storage.rollback()  # as by a full disk
    world.register(this_process)
    assert world.storage.stopping_owners() == {world.owner}
    (run,) = world.recover(this_process)
    assert run.error == "interrupted: its process was killed while it was stopping"
    assert world.storage.stopping_owners() == set()


# Pages: a recovery keeps others out of a server


def test_many_runs_are_recovered_in_pages_and_their_owner_is_dead_from_the_first_on(world):
    jobs = [world.add(at(T0 + MINUTE)) for _ in range(5)]
    world.pass_time(MINUTE)
    world.claim()
    world.mark_stopping(world.owner)
    this_process = process("here", 2)
    options = {"policy": world.policy, "trust_leases": False, "limit": 2}
    sizes = []
    more = True
    while more:
        assert world.storage.stopping_owners() == {world.owner}
        runs, more = world.do(recover, this_process, **options)
        sizes.append(len(runs))
        assert world.do(was_declared_dead, world.owner)
        assert {run.error for run in runs} == {"interrupted: its process was killed while it was stopping"}
    assert sizes == [2, 2, 1]
    assert world.storage.stopping_owners() == set()
    assert {run.job_id for run in world.history() if run.cause == "interrupted"} == set(jobs)
    assert world.do(recover, this_process, **options) == ([], False)


def test_all_runs_of_a_job_are_in_one_page_and_count_as_one_crash(world):
    one = world.add(at(T0 + MINUTE))
    many = world.add(at(T0 + MINUTE), overlap="allow_all")
    for _ in range(3):
        world.request(many)
    world.pass_time(MINUTE)
    assert len(world.claim()) == 5
    this_process = process("here", 2)
    sizes = [len(world.do(recover, this_process, policy=world.policy, trust_leases=False, limit=2).runs) for _ in range(3)]
    assert sorted(sizes) == [0, 1, 4]
    assert [world.job(job_id).crashes for job_id in (one, many)] == [1, 1]


def test_a_run_of_a_later_page_that_its_owner_finishes_meanwhile_is_not_run_again(world):
    for _ in range(2):
        world.add(at(T0 + MINUTE))
    world.pass_time(MINUTE)
    runs = {each.run.id: each.run for each in world.claim()}
    dead, this_process = world.owner, process("here", 2)
    (first,), more = world.do(recover, this_process, policy=world.policy, trust_leases=False, limit=1)
    assert more
    (other,) = [run for run in runs.values() if run.id != first.id]
    assert world.finish(other, SUCCESS, owner=dead) is not None
    assert world.recover(this_process, trust_leases=False) == []
    assert [run.status for run in world.history(other.job_id)] == ["success"]
