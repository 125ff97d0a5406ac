"""Adding, upserting, updating and removing jobs, in every state of their runs."""

from __future__ import annotations

from itertools import permutations

import pytest

from cronactors.errors import DuplicateJob, InvalidSchedule, JobBusy, JobNotFound
from cronactors.instants import from_millis
from cronactors.ledger.cancel_other import cancel_overlapped
from cronactors.ledger.job_fields import Defaults
from cronactors.ledger.jobs import add_jobs, remove_named
from cronactors.model import Overlap, SessionMode
from cronactors.schedules.schedule import Cron, Interval
from cronactors.spec import Delay
from tests.ledger_world import (
    CANCELLED,
    DAY,
    DEFAULTS,
    FAILURE,
    HOUR,
    HOURLY,
    MINUTE,
    MINUTELY,
    SECOND,
    T0,
    at,
)

MAIN = {"session_mode": SessionMode.MAIN, "user_id": "ann"}
NINE = Cron("0 9 * * *")


# Adding


def test_a_name_is_unique_per_user(world):
    world.add(name="a")
    world.add(name="a", user_id="ann")
    with pytest.raises(DuplicateJob, match=r"'a' is taken by a job$"):
        world.add(name="a")
    with pytest.raises(DuplicateJob, match="of user 'ann'"):
        world.add(name="a", user_id="ann")
    with pytest.raises(DuplicateJob, match="given twice"):
        world.do(add_jobs, [world.spec(name="b"), world.spec(name="b")], DEFAULTS)
    assert len(world.do(lambda storage: storage.list_jobs(after=0, limit=9, user_id=None))) == 2


def test_all_or_none_are_added(world):
    with pytest.raises(InvalidSchedule):
        world.do(add_jobs, [world.spec(), world.spec(at(T0 - HOUR))], DEFAULTS)
    assert world.do(lambda storage: storage.list_jobs(after=0, limit=9, user_id=None)) == []


def test_defaults_for_open_fields_are_stored_with_the_job(world):
    (job,) = world.do(add_jobs, [world.spec(NINE)], Defaults(timezone="Europe/Rome", max_retries=7, timeout_secs=5))
    row = world.job(job)
    assert (row.timezone, row.max_retries, row.timeout_secs, row.next_run_at) == ("Europe/Rome", 7, 5, T0 + 8 * HOUR)


def test_a_delay_counts_from_when_it_is_first_added(world):
    spec = world.spec(Delay(1.5))
    (job,) = world.upsert(spec)
    world.pass_time(SECOND)
    assert world.upsert(spec) == [job]
    assert world.job(job).next_run_at == T0 + 1500
    world.pass_time(SECOND)
    world.finish(world.claim_one())
    assert world.upsert(spec) == [job]
    assert (world.job(job).enabled, world.claim()) == (0, [])
    world.upsert((job, world.spec(Delay(3), name=spec[1].name)[1]))
    assert (world.job(job).enabled, world.job(job).next_run_at) == (1, world.now + 3000)


# Upserting


def test_an_upsert_of_an_unchanged_schedule_keeps_next_moment_anchor_and_retry(world):
    spec = world.spec(HOURLY, name="a")
    (job,) = world.upsert(spec)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    before = world.job(job)
    new = world.spec(HOURLY, name="a", max_retries=9)
    world.pass_time(10 * SECOND)
    assert world.upsert(new) == [job]
    row = world.job(job)
    assert (row.next_run_at, row.anchor_at, row.created_at, row.max_retries) == (before.next_run_at, T0, T0, 9)
    assert world.view(job).retry_at == from_millis(T0 + HOUR + 30 * SECOND)


def test_a_due_moment_survives_an_upsert(world):
    spec = world.spec()
    world.upsert(spec)
    world.pass_time(5 * MINUTE)
    world.upsert(spec)
    assert world.claim_one().coalesced == 5


def test_a_done_one_shot_stays_done_until_its_schedule_changes(world):
    spec = world.spec(at(T0), name="a")
    (job,) = world.upsert(spec)
    world.finish(world.claim_one())
    world.pass_time(DAY)
    world.upsert(spec)
    assert (world.job(job).enabled, world.claim()) == (0, [])
    with pytest.raises(InvalidSchedule):
        world.upsert(world.spec(at(T0 + HOUR), name="a"))
    world.upsert(world.spec(at(world.now + HOUR), name="a"))
    assert (world.job(job).enabled, world.job(job).next_run_at) == (1, world.now + HOUR)


def test_upserting_leaves_a_paused_job_paused(world):
    spec = world.spec(name="a")
    (job,) = world.upsert(spec)
    world.pause(job)
    world.upsert(spec)
    world.upsert(world.spec(HOURLY, name="a"))
    assert world.job(job).enabled == 0


def test_an_upsert_leaves_a_paused_one_shot_paused(world):
    (job,) = world.upsert(world.spec(at(T0), name="a"))
    world.pass_time(SECOND)
    world.pause(job)
    world.upsert(world.spec(at(T0 + HOUR), name="a"))
    assert world.job(job).enabled == 0
    world.resume(job)
    assert world.job(job).next_run_at == T0 + HOUR


def test_an_upsert_keeps_the_defaults_with_which_a_job_was_added(world):
    spec = world.spec(NINE)
    (job,) = world.upsert(spec)
    before = world.job(job)
    world.upsert(spec, defaults=Defaults(timezone="Asia/Tokyo", max_retries=0, timeout_secs=1))
    assert world.job(job) == before


def test_jobs_that_their_file_does_not_list_any_more_are_removed(world):
    kept, dropped, other = world.spec(HOURLY), world.spec(HOURLY), world.spec(HOURLY)
    own = world.add(HOURLY)
    first, second = world.upsert(kept, dropped, origin="a.toml")
    (third,) = world.upsert(other, origin="b.toml")
    world.request(second)
    world.request(first)
    new = world.spec(HOURLY)
    assert world.upsert(kept, new, origin="a.toml")[0] == first
    assert [world.exists(job) for job in (own, first, second, third)] == [True, True, False, True]
    assert world.summary(second) == [("cancelled", "removed", 0, 1, 1)]
    assert world.claim_one().job_id == first


def test_an_upsert_repairs_a_schedule_that_cannot_be_read(world):
    spec = world.spec()
    (job,) = world.upsert(spec)
    world.damage(job, schedule="nonsense")
    world.upsert(spec)
    world.pass_time(MINUTE)
    assert world.claim_one().job_id == job


# Updating


def test_fields_that_do_not_concern_time_leave_it_alone(world):
    job = world.with_retry()
    before = world.job(job)
    world.update(job, {"name": "new", "prompt": "else", "max_retries": 0, "timeout_secs": 1.5, "delete_after_run": True})
    row = world.job(job)
    assert (row.name, row.prompt, row.max_retries, row.timeout_secs, row.delete_after_run) == ("new", "else", 0, 1.5, 1)
    assert (row.next_run_at, row.anchor_at) == (before.next_run_at, before.anchor_at)
    assert world.view(job).retry_count == 1


def test_a_new_schedule_counts_from_now_and_drops_the_pending_retry(world):
    job = world.with_retry()
    world.pass_time(7 * SECOND)
    world.update(job, {"schedule": MINUTELY})
    row = world.job(job)
    assert (row.anchor_at, row.next_run_at) == (world.now, world.now + MINUTE)
    assert world.summary(job)[1] == ("cancelled", "replaced", HOUR, 2, 1)
    world.update(job, {"schedule": NINE})
    world.update(job, {"timezone": "Europe/Rome"})
    assert world.job(job).next_run_at == T0 + 8 * HOUR


def test_an_update_during_a_run_is_not_overwritten_when_it_finishes(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    run = world.claim_one()
    world.update(job, {"schedule": MINUTELY, "prompt": "new", "max_retries": 0})
    world.pass_time(MINUTE // 2)
    world.finish(run, FAILURE)
    row = world.job(job)
    assert (row.prompt, row.next_run_at, row.held_by) == ("new", T0 + HOUR + MINUTE, None)
    assert [summary[0] for summary in world.summary(job)] == ["failed"]


def test_a_name_that_is_taken_is_refused(world):
    world.add(name="a")
    job = world.add(name="b")
    with pytest.raises(DuplicateJob):
        world.update(job, {"name": "a", "prompt": "new"})
    assert world.job(job).prompt == "do it"
    world.update(job, {"name": "b"})


def test_an_update_of_a_job_that_does_not_exist_is_refused(world):
    for call in (world.pause, world.resume, world.remove, world.request, world.start):
        with pytest.raises(JobNotFound):
            call("nobody")
    with pytest.raises(JobNotFound):
        world.update("nobody", {})
    with pytest.raises(JobNotFound):
        world.do(remove_named, "nobody", "")


def test_a_new_schedule_cancels_a_run_that_waits_for_its_session_and_releases_those_behind_it(world):
    job = world.add(at(T0 + 20 * SECOND), **MAIN)
    holder = world.add(HOURLY, **MAIN)
    world.request(job)
    world.finish(world.claim_one(), FAILURE)  # the retry of the requested run is due at 0:30
    world.request(holder)
    running = world.claim_one()
    world.pass_time(20 * SECOND)
    world.claim()  # the one-shot waits for the session and holds its job
    world.pass_time(10 * SECOND)
    world.claim()  # so the retry waits for the job
    assert [run.waits_for for run in world.history(job)[1:]] == [f"job:{job}", "session:ann"]
    world.update(job, {"schedule": HOURLY})
    world.finish(running)
    assert world.claim_one().trigger == "retry"


def test_allowing_all_overlaps_releases_the_runs_that_wait(world):
    job = world.with_retry()
    world.request(job)
    world.claim_one()
    world.pass_time(30 * SECOND)
    assert world.claim() == []
    world.update(job, {"overlap": Overlap.ALLOW_ALL})
    assert world.claim_one().trigger == "retry"


def test_a_job_that_allows_all_overlaps_from_now_on_waits_for_nothing(world):
    job = world.add()
    world.pass_time(MINUTE)
    world.claim_one()
    world.update(job, {"overlap": Overlap.ALLOW_ALL})
    world.pass_time(MINUTE)
    assert world.claim_one().scheduled_at == T0 + 2 * MINUTE


def test_a_job_that_no_longer_allows_all_overlaps_waits_for_the_run_that_started_last(world):
    job = world.add(overlap=Overlap.ALLOW_ALL)
    runs = []
    for _ in range(2):
        world.pass_time(MINUTE)
        runs.append(world.claim_one())
    world.update(job, {"overlap": Overlap.SKIP})
    assert world.job(job).held_by == runs[1].id
    world.pass_time(MINUTE)
    assert world.claim() == []
    world.finish(runs[0])
    assert world.claim() == []
    world.finish(runs[1])
    assert world.summary(job)[2:] == [("skipped", "overlap", 3 * MINUTE, 1, 1)]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_job_that_no_longer_allows_all_overlaps_waits_for_all_its_runs(world, order):
    job = world.add(overlap=Overlap.ALLOW_ALL)
    runs = []
    for _ in range(3):
        world.pass_time(MINUTE)
        runs.append(world.claim_one())
    world.update(job, {"overlap": Overlap.SKIP})
    for index in order:
        world.pass_time(MINUTE)
        assert world.claim() == []
        world.finish(runs[index])
    assert world.summary(job)[3:] == [("skipped", "overlap", 4 * MINUTE, 1, 3)]
    world.pass_time(MINUTE)
    assert world.claim_one().scheduled_at == T0 + 7 * MINUTE


def test_a_job_that_cancels_others_from_now_on_cancels_all_its_runs(world):
    job = world.add(overlap=Overlap.ALLOW_ALL)
    runs = []
    for _ in range(2):
        world.pass_time(MINUTE)
        runs.append(world.claim_one())
    world.update(job, {"overlap": Overlap.CANCEL_OTHER})
    world.pass_time(MINUTE)
    world.do(cancel_overlapped)
    for run in reversed(runs):
        assert world.claim() == []
        assert world.run(run).cancel_requested
        world.finish(run, CANCELLED)
    assert world.claim_one().scheduled_at == T0 + 3 * MINUTE


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.ALLOW_ALL])
def test_a_job_in_a_crash_loop_stays_held_whatever_overlap_it_allows(world, overlap):
    job = world.add(overlap=Overlap.SKIP if overlap is Overlap.ALLOW_ALL else Overlap.ALLOW_ALL)
    world.pass_time(MINUTE)
    for _ in range(3):
        world.claim_one()
        world.crash()
    held = world.job(job).held_by
    assert held is not None
    world.update(job, {"overlap": overlap})
    assert world.job(job).held_by == held


def test_an_update_that_changes_nothing_writes_nothing(world):
    job = world.add()
    before = world.job(job)
    world.pass_time(SECOND)
    assert world.update(job, {"prompt": "do it", "schedule": MINUTELY}) == before == world.job(job)


# Removing


def test_removing_a_job_during_a_run_lets_it_finish(world):
    job = world.add()
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.remove(job)
    with pytest.raises(JobNotFound):
        world.view(job)
    finished = world.finish(run, FAILURE)
    assert finished is not None
    assert [summary[:2] for summary in world.summary(job)] == [("failed", "error")]
    world.pass_time(HOUR)
    assert world.claim() == []


def test_a_listed_job_that_is_done_after_its_run_leaves_no_run_pending(world):
    (job,) = world.upsert(world.spec(MINUTELY, name="a"), origin="agent.toml")
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.request(world.add(HOURLY))
    world.crash()  # the requested run is retried, and no moment replaces it
    requested = next(claimed.run for claimed in world.claim() if claimed.run.job_id == job)
    assert (run.attempt, requested.attempt) == (1, 2)
    world.update(job, {"delete_after_run": True, "overlap": Overlap.ALLOW_ALL})
    world.pass_time(MINUTE)
    later = next(claimed.run for claimed in world.claim() if claimed.run.job_id == job)
    world.finish(requested, FAILURE)
    world.finish(later)
    assert not world.job(job).enabled
    assert [run.status for run in world.history(job) if run.completed_at is None] == []


def test_removing_a_job_cancels_its_pending_runs(world):
    job = world.with_retry()
    world.remove(job)
    assert world.summary(job) == [("failed", "error", HOUR, 1, 1), ("cancelled", "removed", HOUR, 2, 1)]
    world.pass_time(MINUTE)
    assert world.claim() == []


def test_a_name_is_free_again_once_its_job_is_removed(world):
    first = world.add(name="a", user_id="ann")
    world.do(remove_named, "a", "ann")
    second = world.add(name="a", user_id="ann")
    assert first != second
    assert not world.exists(first)


def test_the_session_of_a_removed_job_is_busy_until_its_run_finishes(world):
    first, second = world.add(at(T0), **MAIN), world.add(at(T0 + 1), **MAIN)
    world.pass_time(1)
    run = world.claim_one()
    world.remove(first)
    assert world.claim() == []
    world.finish(run)
    assert world.claim_one().job_id == second


def test_the_error_for_a_busy_job_names_its_open_run(world):
    job = world.add(Interval(HOUR), name="busy")
    run = world.request(job)
    with pytest.raises(JobBusy, match=f"'busy' has run {run.id} open"):
        world.request(job)
