"""Pausing and resuming, in every state of a job's runs."""

from __future__ import annotations

import pytest

from cronactors.errors import InvalidJob
from cronactors.instants import from_millis
from cronactors.ledger.jobs import find_named
from cronactors.ledger.pausing import MOST_ENDED, end_pauses
from cronactors.model import CronJob, Overlap, Pause, SessionMode
from cronactors.policy import FREE_CRASHES
from cronactors.schedules.schedule import Cron, OneShot
from cronactors.storage.rows import NextTimes
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


# A pause that ends by itself


def test_a_pause_that_ends_runs_the_first_moment_from_then_on(world):
    job = world.add()
    world.pause(job, until=T0 + 5 * MINUTE, note="moving house")
    view = world.view(job)
    assert (view.enabled, view.next_run_at) == (False, None)
    assert view.pause == Pause(since=from_millis(T0), until=from_millis(T0 + 5 * MINUTE), note="moving house")
    assert world.do(lambda storage: storage.next_times()) == NextTimes(None, T0 + 5 * MINUTE)
    world.pass_time(5 * MINUTE - 1)
    assert world.claim(slotless=True) == []
    world.pass_time(1)
    (claimed,) = world.claim(slotless=True)
    assert claimed.run.scheduled_at == T0 + 5 * MINUTE
    assert world.view(job).pause is None
    assert world.do(lambda storage: storage.next_times().slotless) is None
    assert world.history(job) == [claimed.run]


def test_moments_since_the_end_of_a_pause_are_missed_if_nothing_was_running(world):
    job = world.add()
    world.pause(job, until=T0 + 5 * MINUTE)
    world.pass_time(8 * MINUTE)
    (claimed,) = world.claim(slotless=True)
    assert (claimed.run.scheduled_at, claimed.run.coalesced) == (T0 + 8 * MINUTE, 4)  # 5, 6, 7, 8
    assert claimed.run.span == (T0 + 5 * MINUTE, T0 + 8 * MINUTE)


def test_a_retry_waits_for_the_end_of_the_pause(world):
    job = world.with_retry()
    world.pause(job, until=T0 + 90 * MINUTE)
    world.now = T0 + 90 * MINUTE - 1
    assert world.claim(slotless=True) == []
    world.pass_time(1)
    (claimed,) = world.claim(slotless=True)
    assert (claimed.run.attempt, claimed.run.scheduled_at) == (2, T0 + HOUR)


def test_a_job_that_is_resumed_before_the_end_of_its_pause_is_not_resumed_again(world):
    job = world.add()
    world.pause(job, until=T0 + 5 * MINUTE)
    world.resume(job)
    assert world.do(lambda storage: storage.next_times()) == NextTimes(T0 + MINUTE, None)
    world.pause(job)
    world.pass_time(10 * MINUTE)
    assert world.do(end_pauses) is False
    assert not world.view(job).enabled


def test_a_second_pause_replaces_the_end_and_the_note_but_not_the_begin(world):
    job = world.add()
    world.pause(job, until=T0 + 5 * MINUTE, note="first")
    world.pass_time(MINUTE)
    world.pause(job, note="second")
    assert world.view(job).pause == Pause(since=from_millis(T0), until=None, note="second")
    world.resume(job)
    world.pass_time(MINUTE)
    world.pause(job)
    assert world.view(job).pause == Pause(since=from_millis(T0 + 2 * MINUTE))


@pytest.mark.parametrize("until", [T0, T0 - MINUTE])
def test_a_pause_that_has_ended_already_is_refused(world, until):
    job = world.add()
    with pytest.raises(InvalidJob, match=r"until 2026-03-0.* of job 'job 1' has passed"):
        world.pause(job, until=until)
    assert world.view(job).enabled


def test_a_pause_in_which_a_one_shot_would_pass_is_refused(world):
    job = world.add(at(T0 + HOUR))
    with pytest.raises(InvalidJob, match="is later than its only moment, 2026-03-02T01:00:00Z, which would not run"):
        world.pause(job, until=T0 + 2 * HOUR)
    world.pause(job, until=T0 + HOUR)
    world.pass_time(HOUR)
    assert [claimed.run.scheduled_at for claimed in world.claim(slotless=True)] == [T0 + HOUR]


def test_a_one_shot_that_passes_in_its_pause_stays_paused_and_says_why(world):
    job = world.add()
    world.pause(job, until=T0 + 2 * HOUR)
    world.update(job, {"schedule": at(T0 + HOUR)})
    world.pass_time(2 * HOUR)
    assert world.do(end_pauses)
    assert world.do(end_pauses) is False
    view = world.view(job)
    assert (view.enabled, view.pause) == (False, None)
    assert view.last_error == "job 'job 1' cannot be resumed: the moment of its schedule has passed"
    assert world.do(lambda storage: storage.next_times()) == NextTimes(None, None)


def test_pausing_a_job_that_is_done_changes_nothing(world):
    job = world.add(at(T0 + MINUTE))
    world.pass_time(MINUTE)
    world.finish(world.claim_one())
    before = world.job(job)
    world.pause(job, until=T0 + HOUR, note="why")
    assert world.job(job) == before
    assert world.view(job).pause is None


def test_a_removed_job_leaves_no_pause(world):
    job = world.add()
    world.pause(job, until=T0 + MINUTE)
    world.remove(job)
    assert world.do(lambda storage: storage.pauses.of([job])) == {}
    assert world.do(lambda storage: storage.next_times()) == NextTimes(None, None)


def test_many_pauses_end_in_several_claims(world):
    ids = [world.add() for _ in range(MOST_ENDED + 1)]
    for job in ids:
        world.pause(job, until=T0 + MINUTE)
    world.pass_time(MINUTE)
    assert world.do(end_pauses)
    assert world.do(lambda storage: storage.next_times().slotless) == T0 + MINUTE
    assert world.do(end_pauses)
    assert all(world.view(job).enabled for job in ids)


def test_a_requested_run_starts_during_a_pause(world):
    job = world.add()
    world.pause(job, until=T0 + HOUR)
    run = world.request(job)
    assert [claimed.run.id for claimed in world.claim()] == [run.id]


# A pause that is over, but that no clock has ended yet


@pytest.fixture
def over(world):
    """A job whose pause was to end 3 minutes ago."""
    job = world.add()
    world.pause(job, until=T0 + 5 * MINUTE)
    world.pass_time(8 * MINUTE)
    return job


SKIPPED_SINCE = ("skipped", 5 * MINUTE, 4)


def skipped_since(world, job):
    (found,) = world.history(job)
    return found.status, found.scheduled_at - T0, found.coalesced


def test_resuming_it_loses_no_moment_since(world, over):
    world.resume(over)
    (claimed,) = world.claim(slotless=True)
    assert claimed.run.span == (T0 + 5 * MINUTE, T0 + 8 * MINUTE)


def test_pausing_it_again_records_the_moments_since(world, over):
    world.pause(over, until=T0 + 10 * MINUTE)
    assert skipped_since(world, over) == SKIPPED_SINCE
    assert world.view(over).pause == Pause(since=from_millis(T0 + 8 * MINUTE), until=from_millis(T0 + 10 * MINUTE))


def test_removing_it_records_the_moments_since(world, over):
    world.remove(over)
    assert skipped_since(world, over) == SKIPPED_SINCE


def test_a_new_schedule_records_the_moments_since_and_has_none_from_before(world, over):
    world.update(over, {"schedule": HOURLY})
    assert skipped_since(world, over) == SKIPPED_SINCE
    assert world.view(over).next_run_at == from_millis(T0 + 8 * MINUTE + HOUR)


def test_another_change_loses_no_moment_since(world, over):
    world.update(over, {"prompt": "other"})
    (claimed,) = world.claim(slotless=True)
    assert claimed.run.span == (T0 + 5 * MINUTE, T0 + 8 * MINUTE)


@pytest.mark.parametrize("change", [{}, {"enabled": True}, {"overlap": Overlap.ALLOW_ALL}])
def test_a_list_loses_no_moment_since(world, change):
    world.upsert(world.spec(name="listed"), origin="list")
    job = _listed(world).id
    world.pause(job, until=T0 + 5 * MINUTE)
    world.pass_time(8 * MINUTE)
    world.upsert(world.spec(name="listed", **change), origin="list")
    (claimed,) = world.claim(slotless=True)
    assert claimed.run.span == (T0 + 5 * MINUTE, T0 + 8 * MINUTE)


def test_a_list_that_drops_it_or_changes_its_schedule_records_the_moments_since(world):
    for change in ([], [HOURLY]):
        world.upsert(world.spec(name="listed"), origin="list")
        job = _listed(world).id
        begin = world.now
        world.pause(job, until=begin + 5 * MINUTE)
        world.pass_time(8 * MINUTE)
        world.upsert(*(world.spec(schedule, name="listed") for schedule in change), origin="list")
        (found,) = world.history(job)
        assert (found.status, found.scheduled_at - begin, found.coalesced) == SKIPPED_SINCE
        assert world.claim(slotless=True) == []


def test_a_one_shot_that_is_due_since_runs(world):
    job = world.add(at(T0 + 6 * MINUTE))
    world.pause(job, until=T0 + 5 * MINUTE)
    world.pass_time(8 * MINUTE)
    with pytest.raises(InvalidJob, match="is later than its only moment"):
        world.pause(job, until=T0 + HOUR)
    assert world.resume(job).enabled
    assert [claimed.run.scheduled_at for claimed in world.claim(slotless=True)] == [T0 + 6 * MINUTE]


def test_a_schedule_that_was_changed_after_the_end_has_no_moments_from_before(world, over):
    """As a release does that knows no pauses."""
    world.damage(over, schedule='{"kind":"interval","every_ms":60000}', anchor_at=T0 + 7 * MINUTE)
    (claimed,) = world.claim(slotless=True)
    assert (claimed.run.scheduled_at, claimed.run.coalesced) == (T0 + 8 * MINUTE, 1)


# A pause of a job that is done, or disabled for another reason


def test_a_one_shot_that_succeeds_during_its_pause_is_done_and_not_paused(world):
    job = world.add(at(T0 + MINUTE))
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pause(job, until=T0 + HOUR)
    assert world.view(job).pause is not None
    world.finish(run)
    assert world.view(job).pause is None
    world.pass_time(HOUR)
    assert world.claim(slotless=True) == []
    assert (world.view(job).enabled, world.view(job).last_error) == (False, None)


def test_a_job_that_is_done_and_gets_a_new_schedule_is_not_in_its_old_pause(world):
    job = world.add(at(T0 + MINUTE))
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pause(job, until=T0 + HOUR)
    world.finish(run)
    world.update(job, {"schedule": HOURLY})
    assert world.view(job).enabled
    assert world.do(lambda storage: storage.next_times().slotless) is None


def test_a_job_that_is_disabled_by_crashes_during_its_pause_stays_so(world):
    job = world.add(max_retries=0)
    world.pass_time(MINUTE)
    while True:
        claimed = world.claim()
        if not claimed:
            world.pass_time(MINUTE)
            continue
        if world.job(job).crashes == FREE_CRASHES:
            break
        world.crash()
    world.pause(job, until=world.now + HOUR)
    world.crash()
    assert world.view(job).pause is None
    world.pass_time(HOUR)
    assert world.claim(slotless=True) == []
    assert not world.view(job).enabled


# The wall clock


def test_a_pause_that_ended_while_the_clock_was_ahead_lasts_again(world):
    job = world.add()
    world.pause(job, until=T0 + 5 * HOUR)
    world.pass_time(6 * HOUR)
    for claimed in world.claim(slotless=True):
        world.finish(claimed.run)
    world.set_back(5 * HOUR)
    assert world.view(job).pause == Pause(since=from_millis(T0), until=from_millis(T0 + 5 * HOUR))
    assert world.do(lambda storage: storage.next_times()) == NextTimes(None, T0 + 5 * HOUR)
    world.pass_time(HOUR)
    assert world.claim(slotless=True) == []
    world.now = T0 + 5 * HOUR
    world.claim(slotless=True)
    assert world.view(job).enabled


def test_a_pause_that_began_or_was_ended_by_a_user_while_the_clock_was_ahead(world):
    paused, resumed = world.add(), world.add()
    world.pass_time(6 * HOUR)
    world.pause(paused)
    world.pause(resumed, until=world.now + HOUR)
    world.pass_time(MINUTE)
    world.resume(resumed)
    world.set_back(5 * HOUR)
    assert world.view(paused).pause == Pause(since=from_millis(world.now))
    assert world.view(resumed).enabled
    assert world.do(lambda storage: storage.next_times().slotless) is None


# What a list says


def _listed_id(storage):
    return find_named(storage, "listed", "").id


def _listed(world):
    found = world.do(find_named, "listed", "")
    return world.view(found.id)


def test_a_list_pauses_and_resumes_where_it_says_something_else_than_before(world):
    def listed(**options: bool) -> CronJob:
        world.upsert(world.spec(name="listed", **options), origin="list")
        return _listed(world)

    assert listed(enabled=False).pause == Pause(since=from_millis(T0))
    assert not listed(enabled=False).enabled
    world.resume(_listed(world).id)
    assert listed(enabled=False).enabled, "a user has resumed it, and the list says the same as before"
    assert listed(enabled=True).enabled
    assert not listed(enabled=False).enabled
    assert not listed().enabled, "the list says nothing"
    world.pause(_listed(world).id, until=T0 + HOUR)
    assert listed(enabled=False).pause.until == from_millis(T0 + HOUR), "it is paused already"
    resumed = listed(enabled=True)
    assert (resumed.enabled, resumed.next_run_at) == (True, from_millis(T0 + MINUTE))
    world.pause(_listed(world).id, note="by hand")
    assert listed(enabled=True).pause.note == "by hand"


def test_a_list_pauses_a_job_whose_schedule_it_changes_too(world):
    world.upsert(world.spec(name="listed"), origin="list")
    world.pass_time(3 * MINUTE)
    world.upsert(world.spec(HOURLY, name="listed", enabled=False), origin="list")
    view = _listed(world)
    assert (view.enabled, view.schedule) == (False, HOURLY)
    assert [status for status, *_ in world.summary(view.id)] == ["skipped"]
    world.pass_time(2 * HOUR)
    assert world.claim(slotless=True) == []


def test_a_list_does_not_resume_a_one_shot_that_is_done(world):
    once = at(T0 + MINUTE)
    world.upsert(world.spec(once, name="listed"), origin="list")
    world.pass_time(MINUTE)
    world.finish(world.claim_one())
    world.upsert(world.spec(once, name="listed", enabled=True), origin="list")
    assert not _listed(world).enabled
    world.upsert(world.spec(at(T0 + HOUR), name="listed", enabled=False), origin="list")
    view = _listed(world)
    assert (view.enabled, view.next_run_at, view.pause) == (False, None, Pause(since=from_millis(T0 + MINUTE)))
    world.resume(view.id)
    world.now = T0 + HOUR
    world.finish(world.claim_one())
    world.upsert(world.spec(at(T0 + 2 * HOUR), name="listed", enabled=False), origin="list")
    assert _listed(world).pause is not None, "the list says the same, and the job is new again"


def test_a_user_gives_a_done_one_shot_of_a_list_another_time(world):
    world.upsert(world.spec(at(T0 + MINUTE), name="listed", enabled=False), origin="list")
    job = world.resume(_listed(world).id).id
    world.pass_time(MINUTE)
    world.finish(world.claim_one())
    assert world.update(job, {"schedule": at(T0 + HOUR)}).enabled


def test_a_one_shot_of_a_list_that_has_passed_is_done_and_not_paused(world):
    world.upsert_list(world.spec(at(T0 - HOUR), name="listed", enabled=False), origin="list", keeps_passed=True)
    assert world.do(lambda storage: storage.pauses.of([_listed_id(storage)])) == {}


def test_a_list_that_would_resume_a_one_shot_that_passed_leaves_it_paused(world):
    once = at(T0 + MINUTE)
    world.upsert(world.spec(once, name="listed", enabled=False), origin="list")
    world.pass_time(HOUR)
    world.upsert(world.spec(once, name="listed", enabled=True), origin="list")
    assert not _listed(world).enabled
