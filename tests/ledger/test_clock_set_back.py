"""The wall clock was set back: moments, pending runs and leases are moved, and the next start finds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from cronactors.instants import from_millis
from cronactors.ledger.cancel_other import cancel_overlapped
from cronactors.ledger.clock_set_back import recompute_page
from cronactors.ledger.leases import LEASE, renew_leases
from cronactors.ledger.owners import last_seen, sign_off
from cronactors.model import Overlap
from cronactors.schedules.schedule import Cron, Interval
from cronactors.settings import RetryPolicy
from tests.ledger_world import (
    DAY,
    FAILURE,
    HOUR,
    HOURLY,
    KINDS,
    MINUTE,
    MINUTELY,
    SECOND,
    T0,
    PrunedWorld,
    World,
    at,
    process,
)


@pytest.fixture(params=[(world, kind) for world in (World, PrunedWorld) for kind in KINDS])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Give a world on each kind of storage, with all of its history and with as little as possible."""
    kind, storage = request.param
    with closing(kind(storage)) as made:
        yield made


def test_owners_whose_heartbeat_lies_ahead_stay_until_the_jump_is_handled(world):
    world.pass_time(DAY)
    closed, dead = world.register(process("there")), world.register(process("here"))
    world.do(sign_off, closed)
    world.now = T0
    for _ in range(2):  # handles, which do nothing about it
        world.register(process("here", 2))
        assert world.do(last_seen) == T0 + DAY
    world.set_back(0)
    assert world.do(last_seen) == T0
    world.register(process("here", 2))
    assert not {closed, dead} & {row.id for row in world.do(lambda storage: storage.owners())}


def test_no_lease_lasts_until_the_old_time_is_reached(world):
    lives = world.register(process("there"))
    world.add()
    world.pass_time(MINUTE)
    (claimed,) = world.claim(owner=lives)
    (other,) = [world.register(process("there"))]
    world.do(sign_off, other)
    world.set_back(30 * DAY)
    leases = {row.id: row.lease_until for row in world.do(lambda storage: storage.owners())}
    assert leases[lives] == world.now + LEASE
    assert leases.get(other, 0) == 0
    world.pass_time(LEASE)
    assert [run.id for run in world.recover()] == [claimed.run.id]


def test_a_heartbeat_after_the_clock_was_set_back_shortens_the_lease(world):
    other = world.register(process("there"))
    world.now -= DAY
    world.do(renew_leases, [other])
    rows = {row.id: row for row in world.do(lambda storage: storage.owners())}
    assert (rows[other].heartbeat_at, rows[other].lease_until) == (world.now, world.now + LEASE)


def test_the_latest_entry_is_found_among_the_newest_jobs_and_pending_first_attempts(world):
    entered = lambda: world.do(lambda storage: storage.latest_added_at(among=2))  # noqa: E731
    assert entered() is None
    world.now = T0 + DAY
    job = world.add(HOURLY)
    run = world.request(job)
    world.now = T0
    assert entered() == T0 + DAY
    world.set_back(0)
    assert entered() == T0, "once it was heeded it is not found again"
    assert world.run(run).ready_at == T0
    assert world.view(job).created_at == from_millis(T0)


@pytest.mark.parametrize("schedule", [Interval(MINUTE), Cron("* * * * *")])
def test_nothing_that_was_claimed_runs_again_and_no_job_falls_silent(world, schedule):
    jobs = [world.add(schedule) for _ in range(5)]
    for _ in range(60):
        world.pass_time(MINUTE)
        for claimed in world.claim():
            world.finish(claimed.run)
    world.set_back(HOUR // 2)
    for job in jobs:
        following = 60 if isinstance(world, PrunedWorld) else 31  # the rows of the moments before it are gone
        assert world.job(job).next_run_at == T0 + following * MINUTE
    for _ in range(60):
        world.pass_time(MINUTE)
        for claimed in world.claim():
            world.finish(claimed.run)
    for job in jobs:
        assert world.summary(job) == [("success", None, n * MINUTE, 1, 1) for n in range(1, 91)]


def test_a_job_with_a_long_interval_that_was_added_ahead_is_moved_back(world):
    world.now = T0 + 10 * DAY
    job = world.add(Cron("0 9 * * *"))
    world.set_back(10 * DAY)
    assert world.job(job).next_run_at == T0 + 9 * HOUR


def test_pending_retries_move_with_the_clock(world):
    world.add(at(T0 + HOUR))
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.set_back(HOUR)
    assert world.do(lambda storage: storage.next_times().due) == T0 + 30 * SECOND
    world.pass_time(30 * SECOND)
    assert world.claim_one().trigger == "retry"


def test_of_several_schedulers_that_notice_the_jump_only_one_moves_the_retries(world):
    world.policy = RetryPolicy(delays=(3600,))
    world.add(at(T0 + HOUR))
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(10 * MINUTE)
    world.now -= 30 * MINUTE
    looked_at = world.now - SECOND  # when each last compared its clocks, in the time that the clock shows now
    due = world.now + 50 * MINUTE
    for owner in (world.owner, world.register(process("there")), world.register(process("there"))):
        world.do(recompute_page, after=0, limit=10, owner=owner, by=30 * MINUTE, since=looked_at, earliest=looked_at)
        assert world.do(lambda storage: storage.next_times().due) == due
        world.pass_time(SECOND // 4)
        world.register(process("elsewhere"))
    # A second jump, shorter than the time since the last comparison: the first seems to have been handled after it.
    world.pass_time(10 * MINUTE)
    world.now -= 5 * MINUTE
    looked_at -= 5 * MINUTE
    for owner in (world.owner, world.owner + 1):
        world.do(recompute_page, after=0, limit=10, owner=owner, by=5 * MINUTE, since=looked_at, earliest=looked_at)
        assert world.do(lambda storage: storage.next_times().due) == due - 5 * MINUTE


def test_one_shots_paused_jobs_and_due_moments_are_not_changed(world):
    shot, paused, due = world.add(at(T0 + DAY)), world.add(HOURLY), world.add()
    world.pause(paused)
    world.pass_time(10 * MINUTE)
    before = [world.job(job) for job in (shot, paused, due)]
    world.set_back(MINUTE)
    assert [world.job(job) for job in (shot, paused, due)] == before
    run = world.claim_one()
    assert (run.job_id, run.coalesced) == (due, 9)


def test_a_run_that_is_running_while_the_clock_is_set_back(world):
    job = world.add(HOURLY)
    world.pass_time(5 * HOUR)
    run = world.claim_one()
    world.set_back(3 * HOUR)
    assert world.job(job).next_run_at == T0 + 3 * HOUR
    world.pass_time(2 * HOUR)
    world.finish(run)
    for _ in range(5):
        for claimed in world.claim():
            world.finish(claimed.run)
        world.pass_time(HOUR)
    runs = [summary for summary in world.summary(job) if summary[0] == "success"]
    assert len({summary[2] for summary in runs}) == len(runs)
    assert runs[-1][2] == 8 * HOUR


def test_a_moment_that_has_a_row_does_not_lose_the_others_it_is_merged_with(world):
    """The moment of the run comes due a second time while its retry is running, and later ones for the first time."""
    skips, buffers = world.add(), world.add(overlap=Overlap.BUFFER_ONE)
    world.pass_time(MINUTE)
    world.claim()
    world.crash()
    world.set_back(SECOND)
    runs = world.claim()
    world.pass_time(3 * MINUTE)
    for claimed in runs:
        world.finish(claimed.run)
    assert world.summary(skips)[-1] == ("skipped", "overlap", 2 * MINUTE, 1, 2)
    assert world.history(skips)[-1].range_at == T0 + 3 * MINUTE
    assert world.summary(buffers)[-1] == ("skipped", "overlap", 2 * MINUTE, 1, 2)


def test_if_the_last_moment_has_a_row_those_before_it_make_a_late_run(world):
    job = world.add()
    world.pause(job)
    world.now = T0 + 3 * MINUTE - SECOND
    world.resume(job)
    world.pass_time(SECOND)
    world.finish(world.claim_one())
    world.set_back(3 * MINUTE - SECOND)
    world.pass_time(3 * MINUTE)
    world.finish(world.claim_one())
    assert world.summary(job)[-1] == ("success", None, 2 * MINUTE, 1, 2)
    assert world.history(job)[-1].range_at == T0 + MINUTE
    assert world.claim() == []


def test_a_moment_that_has_a_row_is_not_skipped_with_those_after_it(world):
    job = world.add()
    world.pass_time(MINUTE)
    world.finish(world.claim_one())
    world.set_back(SECOND)
    world.pass_time(2 * MINUTE)
    world.pause(job)
    assert world.summary(job) == [("success", None, MINUTE, 1, 1), ("skipped", "cancelled", 2 * MINUTE, 1, 1)]


def test_no_run_is_cancelled_for_its_own_moment(world):
    job = world.add(overlap=Overlap.CANCEL_OTHER)
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.set_back(SECOND)
    world.pass_time(SECOND)
    world.do(cancel_overlapped)
    assert not world.run(run).cancel_requested
    world.pass_time(MINUTE)
    assert world.do(cancel_overlapped)
    assert world.run(run).cancel_requested
    assert world.summary(job)[-1] == ("pending", None, 2 * MINUTE, 1, 1)


def test_a_moment_that_passed_before_the_jump_was_noticed_is_due(world):
    """While the clock was three days ahead the moments of those days made one run; each comes due again in its own time."""
    job = world.add(Cron("0 9 * * *"))
    world.now = T0 + 3 * DAY + 10 * HOUR
    world.finish(world.claim_one())
    world.now = T0 + DAY + 9 * HOUR - SECOND
    set_to = world.now
    world.pass_time(2 * SECOND)
    world.notice_set_back(2 * DAY + HOUR, set_to=set_to)
    row = world.job(job)
    assert (row.next_run_at, row.decided_local) == (T0 + DAY + 9 * HOUR, (T0 + DAY + 9 * HOUR) // 1000 - 1)
    assert world.claim_one().scheduled_at == T0 + DAY + 9 * HOUR
    assert world.job(job).next_run_at == T0 + 2 * DAY + 9 * HOUR


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.BUFFER_ONE])
def test_moments_decided_between_the_jump_and_its_notice_are_not_decided_again(world, overlap):
    """A job that comes due every 100 ms: before the jump is noticed a claim merges moments, and a finish skips some."""
    job = world.add(Interval(100), overlap=overlap)
    world.now = T0 + DAY
    world.finish(world.claim_one())
    world.now = set_to = T0 + 1_050
    world.notice_set_back(DAY, set_to=set_to)
    world.pass_time(300)
    merged = world.claim_one()
    assert (merged.scheduled_at, merged.range_at) == (T0 + 1_300, T0 + 1_100)
    world.pass_time(300)
    world.finish(merged)
    if overlap is Overlap.BUFFER_ONE:
        world.finish(world.claim_one())
    following = world.job(job).next_run_at
    assert following == T0 + 1_700
    summary = world.summary(job)
    world.notice_set_back(DAY, set_to=set_to, owner=world.owner + 1)  # another scheduler, which notices it later
    assert world.job(job).next_run_at == following
    world.pass_time(49)
    assert world.claim() == []
    assert world.summary(job) == summary


def test_a_moment_before_a_job_was_added_or_edited_is_not_due(world):
    world.now = T0 + 9 * HOUR + SECOND
    added = world.add(Cron("0 9 * * *"))
    edited = world.add(Cron("0 8 * * *"))
    world.update(edited, {"schedule": Cron("0 9 * * *")})
    ahead = world.do(lambda storage: storage.jobs([added])[added])._replace(next_run_at=T0 + 30 * DAY)
    world.do(lambda storage: storage.update_jobs([ahead]))
    world.pass_time(SECOND)
    world.notice_set_back(DAY, set_to=T0 + 9 * HOUR - SECOND)
    assert [world.job(job).next_run_at for job in (added, edited)] == [T0 + 33 * HOUR] * 2


def test_a_scheduler_that_notices_the_jump_later_uses_the_time_of_the_one_that_noticed_it_first(world):
    """It last compared its clocks an hour before: it cannot know that no moment of that hour has passed since the clock was set."""
    job = world.add(Cron("0 9 * * *"))
    world.now = T0 + 3 * DAY
    world.finish(world.claim_one())
    world.now = T0 + 9 * HOUR + 30 * MINUTE
    world.notice_set_back(2 * DAY, set_to=world.now - SECOND)
    assert world.job(job).next_run_at == T0 + 33 * HOUR
    world.pass_time(SECOND)
    world.notice_set_back(2 * DAY, set_to=world.now - HOUR, owner=world.register(process("there")))
    assert world.job(job).next_run_at == T0 + 33 * HOUR
    assert world.claim() == []


@pytest.mark.parametrize("noted", ["x", "[]", "{}", "17", '{"at": 1772409600000, "owner": 99, "earliest": null}'])
def test_a_fact_that_cannot_be_read_stops_no_start(world, noted):
    job = world.add(MINUTELY)
    world.do(lambda storage: storage.set_meta("clock_set_back", noted))
    world.set_back(HOUR)
    assert world.job(job).next_run_at <= world.now + MINUTE


def test_no_moment_of_an_interval_that_started_ahead_is_left_out_before_the_jump_is_noticed(world):
    world.pass_time(10 * HOUR)
    job = world.add(MINUTELY)
    world.now = T0 + 9 * HOUR + 150 * SECOND
    world.do(recompute_page, after=0, limit=100, owner=world.owner, by=HOUR, since=world.now, earliest=T0 + 9 * HOUR)
    assert world.job(job).next_run_at == T0 + 9 * HOUR + MINUTE


def test_moments_before_one_that_came_due_before_the_jump_was_noticed_are_due_too(world):
    """The next moment was computed while the clock was ahead, so it left out those that the clock shows a second time."""
    job = world.add(Interval(30 * SECOND))
    world.pause(job)
    world.pass_time(4 * MINUTE + 8 * SECOND)
    world.resume(job)
    assert world.job(job).next_run_at == T0 + 270 * SECOND
    world.now = set_to = T0 + 188 * SECOND
    world.pass_time(90 * SECOND)
    world.notice_set_back(MINUTE, set_to=set_to)
    run = world.claim_one()
    assert (run.scheduled_at, run.range_at, run.coalesced) == (T0 + 270 * SECOND, T0 + 210 * SECOND, 3)


def test_moments_that_have_rows_are_not_due_again_before_one_that_came_due_meanwhile(world):
    world.add(Interval(30 * SECOND))
    world.pass_time(4 * MINUTE + 8 * SECOND)
    world.finish(world.claim_one())
    world.now = set_to = T0 + 188 * SECOND
    world.pass_time(90 * SECOND)
    world.notice_set_back(MINUTE, set_to=set_to)
    run = world.claim_one()
    assert (run.scheduled_at, run.range_at, run.coalesced) == (T0 + 270 * SECOND, None, 1)
