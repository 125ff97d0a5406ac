"""What dead processes leave behind, crashes in a row, leases, and runs that were asked to end."""

from __future__ import annotations

from contextlib import closing

import pytest

from cronactors.ledger.cancel_other import cancel_overlapped
from cronactors.ledger.leases import CLAIM_KEEPS, KEEP_EVERY, LEASE, renew_leases
from cronactors.ledger.owners import last_seen, sign_off
from cronactors.ledger.recovery import recover
from cronactors.model import Cause, Overlap, SessionMode
from cronactors.owner import ProcessIdentity
from cronactors.schedules.schedule import Interval
from tests.ledger_world import (
    DAY,
    FAILURE,
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
    process,
)


@pytest.fixture(params=KINDS)
def world(request):
    with closing(World(request.param)) as made:
        yield made


# Crashes


def test_what_a_crash_interrupted_is_marked_and_run_again(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.begin()
    world.pass_time(MINUTE)
    (ended,) = world.crash()
    assert (ended.id, ended.status, ended.cause, ended.completed_at) == (run.id, "failed", "interrupted", world.now)
    assert "process ended" in (ended.error or "")
    again = world.begin()
    assert (again.scheduled_at, again.attempt, again.trigger, again.failures) == (T0 + HOUR, 2, "recovery", 0)
    assert again.owner == world.owner != run.owner
    world.finish(again)
    assert [told[:2] for told in world.told(job)] == [("failed", "interrupted"), ("success", None)]
    assert world.claim() == []
    assert world.job(job).crashes == 0


def test_moments_missed_while_nothing_was_running_make_one_late_run_after_what_was_interrupted(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.begin()
    world.pass_time(3 * DAY)
    world.crash()
    world.finish(world.begin())
    late = world.begin()
    assert (late.scheduled_at, late.coalesced, late.attempt) == (T0 + 3 * DAY + HOUR, 72, 1)
    world.finish(late)
    assert [told[0] for told in world.told(job)] == ["failed", "success", "success"]
    assert world.claim() == []


def test_an_orderly_interruption_does_not_count_as_a_crash(world):
    job = world.add(HOURLY, max_retries=0)
    world.pass_time(HOUR)
    for _ in range(2):
        world.begin()
        world.crash()
    world.finish(world.begin(), INTERRUPTED)
    assert world.job(job).crashes == 2
    assert world.begin().failures == 0


def test_after_crashes_an_orderly_interruption_still_costs_nothing(world):
    world.add(at(T0), max_retries=1)
    for _ in range(3):
        world.begin()
        world.crash()
    world.pass_time(30 * SECOND)
    for _ in range(3):
        run = world.begin()
        assert run.failures == 1
        world.finish(run, INTERRUPTED)


def test_from_the_third_crash_in_a_row_the_job_slows_down_and_stops(world):
    job = world.add(at(T0), max_retries=3)
    waits = []
    while world.job(job).enabled:
        before = world.now
        ready = world.do(lambda storage: storage.next_times().due)
        world.now = max(world.now, ready)
        waits.append((world.now - before) // SECOND)
        world.begin()
        world.crash()
    assert waits == [0, 0, 0, 30, 60, 300]
    row = world.job(job)
    assert row.crashes == 6
    assert "6 times in a row" in (row.last_error or "")
    assert world.claim() == []


@pytest.mark.parametrize("overlap", list(Overlap))
def test_new_moments_do_not_let_a_job_that_kills_its_process_go_on(world, overlap):
    job = world.add(Interval(SECOND), overlap=overlap)
    starts = 0
    while world.job(job).enabled and starts < 50:
        world.pass_time(SECOND)
        claimed = world.claim()
        starts += len(claimed)
        if claimed:
            world.crash()
    assert world.now - T0 > (30 + 60 + 300) * SECOND
    assert starts <= (6 if overlap is Overlap.SKIP else 15)  # several runs at once; a crash counts once
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


def test_an_end_of_any_other_kind_ends_the_row_of_crashes(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    for _ in range(2):
        world.begin()
        world.crash()
    assert world.job(job).crashes == 2
    world.finish(world.begin(), FAILURE)
    assert world.job(job).crashes == 0


def test_moments_of_a_job_that_was_stopped_are_recorded(world):
    job = world.add(max_retries=0)
    world.pass_time(MINUTE)
    for _ in range(2):
        world.begin()
        world.crash()
    world.begin()
    world.pass_time(2 * MINUTE)
    world.crash()
    assert world.job(job).enabled == 0
    assert world.told(job)[-1] == ("skipped", "interrupted", 2 * MINUTE, 1, 2)


def test_a_crash_of_a_removed_job_is_only_marked(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.begin()
    world.remove(job)
    world.crash()
    assert world.told(job) == [("failed", "interrupted", HOUR, 1, 1)]
    assert world.claim() == []


def test_a_crash_frees_the_session(world):
    main = {"session_mode": SessionMode.MAIN}
    first, second = world.add(at(T0), **main), world.add(at(T0 + 1), **main)
    world.pass_time(1)
    world.begin()
    world.crash()
    order = []
    for _ in range(2):
        order.append(world.begin())
        world.finish(order[-1])
    assert [run.job_id for run in order] == [first, second]


def test_a_paused_job_waits_with_what_was_interrupted(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.begin()
    world.pause(job)
    world.crash()
    assert world.claim() == []
    assert world.history(job)[1].waits_for == "pause"
    world.resume(job)
    assert world.begin().trigger == "recovery"


# Owners


def test_only_the_runs_of_the_dead_are_taken_back(world):
    other = world.register(process("there"))
    jobs = [world.add() for _ in range(2)]
    world.pass_time(MINUTE)
    (mine,) = world.claim(limit=1)
    (theirs,) = world.claim(limit=1, owner=other)
    assert {mine.run.job_id, theirs.run.job_id} == set(jobs)
    assert world.recover() == []
    assert [run.id for run in world.crash()] == [mine.run.id]
    assert world.run(theirs.run).status == "running"


def test_without_a_sign_of_life_the_lease_ends(world):
    other = world.register(process("there"))
    world.add()
    world.pass_time(MINUTE)
    (claimed,) = world.claim(owner=other)
    world.pass_time(LEASE - 1)
    assert world.recover() == []
    world.pass_time(1)
    assert world.orphans(trust_leases=False) == []
    assert [run.id for run in world.orphans(trust_leases=True)] == [claimed.run.id]
    world.do(renew_leases, [other])
    assert world.recover() == []
    world.pass_time(LEASE)
    assert [run.id for run in world.recover()] == [claimed.run.id]


def test_a_heartbeat_counts_from_when_it_is_given_whatever_is_left_of_the_lease(world):
    for beat in range(4):
        world.pass_time(KEEP_EVERY)
        world.do(renew_leases, [world.owner])
        assert lease_of(world, world.owner) == (T0 + (beat + 1) * KEEP_EVERY, T0 + (beat + 1) * KEEP_EVERY + LEASE)


@pytest.mark.parametrize("claimed_after", [0, CLAIM_KEEPS - 1, CLAIM_KEEPS + 1, 2 * CLAIM_KEEPS, LEASE // 2 + 1])
@pytest.mark.parametrize("own_loop", [False, True])
def test_a_process_that_is_stopped_for_19_s_keeps_its_runs_wherever_it_is_stopped(world, claimed_after, own_loop):
    """Stopped just before the heartbeat that would come next, at most `KEEP_EVERY` after the claim."""
    other, here = world.register(process("there")), world.owner
    job_id = world.add(at(T0 + MINUTE))
    world.pass_time(MINUTE)
    world.do(renew_leases, [other])
    world.pass_time(claimed_after)
    world.owner = other
    run = world.start(job_id) if own_loop else world.begin()
    world.owner = here
    world.pass_time(KEEP_EVERY - 1 + 19_000)
    assert world.recover() == []
    world.pass_time(LEASE)
    assert [ended.id for ended in world.recover()] == [run.id]


def lease_of(world: World, owner: int) -> tuple[int, int]:
    (row,) = [row for row in world.do(lambda storage: storage.owners()) if row.id == owner]
    return row.heartbeat_at, row.lease_until


def test_nobody_takes_his_own_runs_for_orphans(world):
    world.add()
    world.pass_time(MINUTE)
    run = world.begin()
    world.pass_time(DAY)
    assert world.recover(mine=[world.owner]) == []
    assert [orphan.id for orphan in world.orphans(trust_leases=True)] == [run.id]


@pytest.mark.parametrize("trust_leases", [False, True])
def test_what_a_handle_leaves_open_when_it_closes_is_run_by_nobody(world, trust_leases):
    world.add()
    world.pass_time(MINUTE)
    run = world.begin()
    assert world.recover(trust_leases=trust_leases) == []
    world.do(sign_off, world.owner)
    assert [ended.id for ended in world.recover(trust_leases=trust_leases)] == [run.id]


def test_owners_that_ended_in_order_or_died_are_forgotten_once_they_own_nothing(world):
    there = world.register(process("there"))
    world.add()
    world.pass_time(MINUTE)
    world.begin()
    world.do(sign_off, there)
    before = world.owner
    world.register(process("here", 2))
    rows = world.do(lambda storage: storage.owners())
    assert before in {row.id for row in rows}
    assert there not in {row.id for row in rows}
    world.recover(process("here", 2))
    latest = world.register(process("here", 3))
    assert [row.id for row in world.do(lambda storage: storage.owners())] == [latest]


def test_the_last_sign_of_life(world):
    world.pass_time(HOUR)
    other = world.register(process("there"))
    world.pass_time(HOUR)
    assert world.do(last_seen) == T0 + HOUR
    world.do(renew_leases, [world.owner])
    assert world.do(last_seen) == T0 + 2 * HOUR
    world.do(sign_off, other)


def test_what_was_left_open_by_a_handle_that_closed_is_no_crash(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    for attempt in (1, 2, 3, 4):
        assert world.begin().attempt == attempt
        world.do(sign_off, world.owner)
        world.owner = world.register(process("here"))
        assert [run.error for run in world.recover()] == ["interrupted: it was left open"]
    assert world.job(job).crashes == 0


@pytest.mark.parametrize("end", ["shutdown", "crash"])
def test_a_run_that_was_asked_to_end_is_not_put_back(world, end):
    job = world.add(at(T0 + HOUR))
    world.pass_time(HOUR)
    run = world.begin()
    world.cancel(run)
    if end == "crash":
        world.crash()
    else:
        world.finish(run, INTERRUPTED)
    assert world.told(job) == [("cancelled", "cancelled", HOUR, 1, 1)]
    assert world.claim() == []
    assert world.job(job).enabled == 0


@pytest.mark.parametrize("asked", ["cancelled", "replaced", None])
def test_an_interruption_is_recorded_once_though_it_is_told_twice(world, asked):
    """As after a commit whose answer was lost."""
    job = world.add(overlap=Overlap.CANCEL_OTHER)
    world.pass_time(MINUTE)
    run = world.begin()
    if asked == "replaced":
        world.pass_time(MINUTE)
        world.do(cancel_overlapped)
    elif asked == "cancelled":
        world.cancel(run)
    ended = world.finish(run, INTERRUPTED)
    assert ended is not None
    assert (ended.status, ended.cause) == (("failed", "interrupted") if asked is None else ("cancelled", asked))
    told = world.told(job)
    assert world.finish(run, INTERRUPTED) == ended
    assert world.finish(run, SUCCESS) is None
    assert world.told(job) == told


@pytest.mark.parametrize("end", [FAILURE, TIMEOUT])
def test_a_run_that_was_asked_to_end_and_fails_instead_is_not_tried_again(world, end):
    once = world.add(at(T0 + HOUR))
    often = world.add(HOURLY, delete_after_run=True)
    world.pass_time(HOUR)
    for claimed in world.claim():
        world.cancel(claimed.run)
        world.finish(claimed.run, end)
    for job in (once, often):
        assert world.told(job) == [("failed", end.cause, HOUR, 1, 1)]
        assert world.job(job).last_error == end.error
    assert world.job(once).enabled == 0
    assert world.job(often).next_run_at == T0 + 2 * HOUR, "as if it had been cancelled in time"
    world.pass_time(MINUTE)
    assert world.claim() == []


def test_a_run_that_was_to_be_replaced_and_fails_instead_leaves_its_place(world):
    job = world.add(overlap=Overlap.CANCEL_OTHER, delete_after_run=True)
    world.pass_time(MINUTE)
    run = world.begin()
    world.pass_time(MINUTE)
    world.do(cancel_overlapped)
    world.finish(run, FAILURE)
    following = world.begin()
    assert following.scheduled_at == T0 + 2 * MINUTE
    world.finish(following, SUCCESS)
    assert not world.exists(job)


def test_a_new_moment_does_not_let_a_job_that_kills_its_process_go_on(world):
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


def mark_stopping(world: World, owner: int) -> None:
    world.storage.mark_stopping(owner)


def test_a_kill_after_being_asked_to_stop_is_no_crash(world):
    job_id = world.add(at(T0 + MINUTE), max_retries=0)
    world.pass_time(MINUTE)
    for attempt in range(1, 6):
        assert world.begin().attempt == attempt
        mark_stopping(world, world.owner)
        (run,) = world.crash()
        assert (run.status, run.cause) == ("failed", Cause.INTERRUPTED)
        assert run.error == "interrupted: its process was killed while it was stopping"
        assert (world.job(job_id).crashes, world.job(job_id).enabled) == (0, 1)
        assert world.storage.stopping_owners() == set()


def test_only_the_owner_that_was_asked_to_stop_is_spared(world):
    stops, crashes = world.add(at(T0 + MINUTE)), world.add(at(T0 + MINUTE))
    other = world.register(process("here"))
    world.pass_time(MINUTE)
    world.claim(limit=1)
    world.claim(limit=1, owner=other)
    mark_stopping(world, world.owner)
    world.crash()
    assert [world.job(job_id).crashes for job_id in (stops, crashes)] == [0, 1]


def test_a_mark_is_removed_with_the_commit_that_recovers_and_not_before(world):
    world.add()
    world.pass_time(MINUTE)
    world.begin()
    mark_stopping(world, world.owner)
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


def test_who_signs_off_removes_its_mark(world):
    mark_stopping(world, world.owner)
    world.do(sign_off, world.owner)
    assert world.storage.stopping_owners() == set()


def test_a_registration_removes_marks_that_stand_for_nobody(world):
    world.add()
    world.pass_time(MINUTE)
    world.begin()
    for owner in (world.owner, world.owner + 1, 77):  # a living one, one of an earlier file, one whose row is gone
        mark_stopping(world, owner)
    assert world.register(process("there")) == world.owner + 1
    assert world.storage.stopping_owners() == {world.owner}


def test_a_mark_of_a_process_that_may_live_is_kept_for_a_day_beyond_its_lease(world):
    """As of another container, of which nobody can tell whether it has died."""
    elsewhere = world.register(ProcessIdentity("", 7, ""))
    mark_stopping(world, elsewhere)
    world.pass_time(LEASE + 23 * HOUR)
    world.register(process("here", 2))
    assert world.storage.stopping_owners() == {elsewhere}
    world.pass_time(2 * HOUR)
    world.register(process("here", 3))
    assert world.storage.stopping_owners() == set()
