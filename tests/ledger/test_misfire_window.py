"""`Misfire.window` applies to retries and to interrupted runs too: none of them starts later."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import trio

from cronactors import AlreadyClaimed, Cause, CronConfig, JobContext, OneShot, RetryPolicy, RunStatus, open_scheduler, open_store
from cronactors.errors import JobBusy
from cronactors.ledger.jobs import resume_job
from cronactors.model import Misfire, Overlap, SessionMode
from cronactors.testing import VirtualClock
from tests.ledger_world import FAILURE, HOUR, HOURLY, INTERRUPTED, MINUTE, MINUTELY, SECOND, T0, at
from tests.workers import after, history

WINDOW = Misfire(window=timedelta(minutes=1))


def test_a_retry_starts_within_the_window_and_not_later(world):
    job = world.add(HOURLY, misfire=WINDOW)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(30 * SECOND)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(HOUR - MINUTE)
    assert world.claim() == []
    assert world.summary(job)[1:] == [
        ("failed", "error", HOUR, 2, 1),
        ("cancelled", "misfire", HOUR, 3, 1),
    ]
    late = world.history(job)[-1]
    assert (late.started_at, late.waits_for) == (None, None)
    assert late.error == "not started: its moment is older than the misfire window of the job"
    row = world.job(job)
    assert (row.held_by, row.enabled, row.last_error, row.next_run_at) == (None, 1, "boom", T0 + 2 * HOUR)
    world.pass_time(30 * SECOND)
    assert world.claim_one().scheduled_at == T0 + 2 * HOUR


@pytest.mark.parametrize(("later", "starts"), [(MINUTE, True), (MINUTE + 1, False)])
def test_a_run_that_a_crash_interrupted_is_not_retried_after_the_window(world, later, starts):
    job = world.add(HOURLY, misfire=WINDOW)
    world.pass_time(HOUR)
    world.claim_one()
    world.pass_time(later)
    world.crash()
    assert len(world.claim()) == starts
    assert world.history(job)[-1].trigger == "recovery"
    assert world.summary(job)[-1][:2] == (("running", None) if starts else ("cancelled", "misfire"))


def test_a_run_that_a_shutdown_interrupted_is_not_retried_after_the_window(world):
    job = world.add(HOURLY, misfire=WINDOW)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), INTERRUPTED)
    world.pass_time(2 * MINUTE)
    assert world.claim() == []
    assert world.summary(job)[-1] == ("cancelled", "misfire", HOUR, 2, 1)


def test_without_a_window_no_retry_is_too_late(world):
    world.add(HOURLY, misfire=Misfire(coalesce="all"))
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(59 * MINUTE)
    assert world.claim_one().attempt == 2


def test_a_requested_run_has_no_window(world):
    job = world.add(HOURLY, misfire=WINDOW)
    world.request(job)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(10 * MINUTE)
    run = world.claim_one()
    assert (run.manual, run.attempt) == (1, 2)


def test_a_first_attempt_that_waits_for_its_own_job_is_not_too_late(world):
    world.add(MINUTELY, misfire=WINDOW, overlap=Overlap.BUFFER_ONE)
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pass_time(10 * MINUTE)
    world.finish(run)
    later = world.claim_one()
    assert (later.attempt, later.scheduled_at) == (1, T0 + 2 * MINUTE)


@pytest.mark.parametrize("delete", [False, True])
def test_a_one_shot_whose_retry_is_too_late_is_done_as_after_its_last_retry(world, delete):
    job = world.add(at(T0 + MINUTE), misfire=WINDOW, delete_after_run=delete)
    world.pass_time(MINUTE)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(10 * MINUTE)
    assert world.claim() == []
    assert world.summary(job)[-1] == ("cancelled", "misfire", MINUTE, 2, 1)
    assert world.exists(job) is not delete
    if not delete:
        row = world.job(job)
        assert (row.enabled, row.next_run_at, row.held_by) == (0, None, None)


@pytest.mark.parametrize("origin", [None, "agent.toml"])
def test_a_job_to_be_deleted_after_its_first_moment_is_deleted_though_its_next_one_is_due(world, origin):
    spec = world.spec(HOURLY, misfire=WINDOW, delete_after_run=True)
    (job,) = world.upsert(spec, origin=origin)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(2 * HOUR)
    assert world.claim() == []
    assert world.summary(job)[1:] == [("cancelled", "misfire", HOUR, 2, 1), ("skipped", "removed", 2 * HOUR, 1, 2)]
    assert world.exists(job) is (origin is not None)
    assert origin is None or not world.job(job).enabled


def test_a_short_window_does_not_let_a_crash_loop_continue(world):
    """Its third crash costs a retry that would start after the window: the job is disabled as if its retries were spent."""
    job = world.add(HOURLY, misfire=Misfire(window=timedelta(seconds=20)))
    world.pass_time(HOUR)
    for _ in range(3):
        world.claim_one()
        world.crash()
    held = world.history(job)[-1]
    assert world.job(job).held_by == held.id
    world.pass_time(HOUR)
    assert world.claim() == []
    row = world.job(job)
    assert (world.run(held).cause, row.held_by, row.enabled) == ("misfire", None, 0)
    assert "3 times in a row" in (row.last_error or "")
    assert world.summary(job)[-1] == ("skipped", "interrupted", 2 * HOUR, 1, 1)
    world.do(resume_job, job)
    world.pass_time(HOUR)
    assert world.claim_one().scheduled_at == T0 + 3 * HOUR


def test_a_retry_that_is_too_late_releases_the_run_that_waits_for_it(world):
    """Two runs wait for one session; the first is too late when it is released."""
    holder, late, third = (
        world.add(at(T0 + number), misfire=WINDOW, session_mode=SessionMode.MAIN, user_id="ann") for number in (0, 1, 40 * SECOND)
    )
    world.pass_time(1)
    world.finish(world.claim_one())
    world.finish(world.claim_one(), FAILURE)
    world.request(holder)
    running = world.claim_one()
    world.pass_time(45 * SECOND)
    assert world.claim() == []  # both wait for the session
    world.pass_time(MINUTE)
    world.finish(running)
    assert world.claim_one().job_id == third
    assert world.summary(late)[-1][:2] == ("cancelled", "misfire")


def test_a_retry_is_cancelled_when_its_job_is_resumed_after_the_window(world):
    job = world.add(at(T0 + MINUTE), misfire=WINDOW)
    world.pass_time(MINUTE)
    world.finish(world.claim_one(), FAILURE)
    world.pause(job)
    world.pass_time(HOUR)
    assert world.claim() == []
    world.resume(job)
    assert world.claim() == []
    assert world.summary(job)[-1][:2] == ("cancelled", "misfire")
    assert not world.job(job).enabled


@pytest.mark.parametrize("by_id", [True, False])
def test_an_own_loop_cancels_a_retry_that_is_too_late(world, by_id):
    job = world.add(HOURLY, misfire=WINDOW)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(10 * MINUTE)
    (shown,) = world.retries()
    with pytest.raises(AlreadyClaimed, match="its attempt was cancelled"):
        world.start(job if by_id else shown)
    assert world.summary(job)[-1][:2] == ("cancelled", "misfire")
    assert world.retries() == []


@pytest.mark.parametrize("by_id", [True, False])
def test_an_own_loop_skips_a_moment_that_is_too_late(world, by_id):
    """The error must not undo that: the moment would be due for ever."""
    job = world.add(at(T0 + MINUTE), misfire=WINDOW)
    world.pass_time(HOUR)
    (shown,) = world.due()
    with pytest.raises(AlreadyClaimed, match="its moment was skipped"):
        world.start(job if by_id else shown)
    assert world.summary(job) == [("skipped", "misfire", MINUTE, 1, 1)]
    assert (world.due(), world.job(job).enabled) == ([], 0)


def test_an_own_loop_passes_over_moments_that_were_decided_before_the_clock_was_set_back(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.claim_one())
    world.set_back(SECOND)
    world.pass_time(SECOND)
    with pytest.raises(AlreadyClaimed, match="before the clock was set back"):
        world.start(world.due()[0])
    assert (world.due(), world.job(job).next_run_at) == ([], T0 + 2 * HOUR)


def test_an_own_loop_disables_a_job_that_cannot_be_read(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.damage(job, schedule='{"kind":"odd"}')
    with pytest.raises(JobBusy, match="cannot be read"):
        world.start(job)
    assert not world.job(job).enabled


async def test_the_window_is_the_same_for_a_scheduler_and_for_an_own_loop(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    ran: list[tuple[str, int]] = []

    async def executor(context: JobContext) -> None:
        ran.append((context.job_name, context.attempt))
        raise ValueError("no luck")

    config = CronConfig(max_concurrent_runs=1, retry=RetryPolicy(delays=(40,)))
    async with open_scheduler(tmp_path / "a.db", executor, config=config) as scheduler:
        await scheduler.store.add_job("window", "it", OneShot(after(10)), misfire=WINDOW)
        await scheduler.store.add_job("none", "it", OneShot(after(10)), max_retries=2)
        await trio.sleep(200)
        runs = [run for run in await history(scheduler) if run.job_name == "window"]
        assert sorted((run.attempt, run.status, run.cause) for run in runs) == [
            (1, RunStatus.FAILED, Cause.ERROR),
            (2, RunStatus.FAILED, Cause.ERROR),
            (3, RunStatus.CANCELLED, Cause.MISFIRE),
        ]
        job = await scheduler.store.get_job_by_name("window")
        assert job is not None
        assert (job.enabled, job.retry_at, job.last_error) == (False, None, "ValueError: no luck")
    assert sorted(ran) == [("none", 1), ("none", 2), ("none", 3), ("window", 1), ("window", 2)]
    async with open_store(tmp_path / "a.db") as store:
        job_id = await store.add_job("loop", "it", OneShot(after(300)), misfire=WINDOW)
        virtual_clock.set_wall(after(500))
        with pytest.raises(AlreadyClaimed):
            await store.record_run_start(job_id)
        assert [run.cause for run in await store.list_runs(job_id)] == [Cause.MISFIRE]
