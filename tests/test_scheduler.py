"""The scheduler through its public API, on virtual time: when jobs run, and how an outcome changes a job."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from cronactors import (
    AlreadyClaimed,
    Cause,
    CronConfig,
    CronRun,
    GiveUp,
    JobBusy,
    JobContext,
    JobNotFound,
    JobSpec,
    OneShot,
    Overlap,
    Retry,
    RetryPolicy,
    RunClosed,
    RunStatus,
    SessionMode,
    Trigger,
    open_scheduler,
    open_store,
)
from cronactors.testing import VirtualClock
from tests.workers import MINUTE, Worker, after, facts, history, slots

# The behaviour that the original crate documents


async def test_a_job_is_executed_when_it_is_due_and_not_before(virtual_clock: VirtualClock) -> None:
    worker = Worker()
    async with open_scheduler(":memory:", worker) as scheduler:
        due = await scheduler.store.add_job("due", "it", OneShot(after(10)))
        later = await scheduler.store.add_job("later", "it", OneShot(after(1000)))
        await trio.sleep(9.999)
        assert worker.seen == []
        await trio.sleep(100)
        assert worker.times == [10.0]
        assert worker.names == ["due"]
        (run,) = await history(scheduler)
        assert run == CronRun(
            id=run.id,
            job_id=due,
            job_name="due",
            user_id=None,
            scheduled_at=after(10),
            attempt=1,
            trigger=Trigger.SCHEDULE,
            started_at=after(10),
            completed_at=after(10),
            status=RunStatus.SUCCESS,
            result_summary="did it",
            session_id="s",
        )
        assert not (await scheduler.store.get_job(due)).enabled
        assert (await scheduler.store.get_job(later)).next_run_at == after(1000)


async def test_the_executor_gets_every_field_of_the_context(virtual_clock: VirtualClock) -> None:
    worker = Worker()
    async with open_scheduler(":memory:", worker) as scheduler:
        job_id = await scheduler.store.add_job(
            "näme", "do\nthis", OneShot(after(5)), session_mode=SessionMode.MAIN, user_id="ann"
        )
        await trio.sleep(6)
        (run,) = await history(scheduler)
        assert worker.seen[0][1] == JobContext(
            prompt="do\nthis",
            session_mode=SessionMode.MAIN,
            job_name="näme",
            job_id=job_id,
            user_id="ann",
            run_id=run.id,
            scheduled_at=after(5),
            attempt=1,
        )


async def test_a_failure_schedules_a_retry(virtual_clock: VirtualClock) -> None:
    worker = Worker(failures=1)
    async with open_scheduler(":memory:", worker) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", OneShot(after(10)))
        await trio.sleep(20)
        job = await scheduler.store.get_job(job_id)
        assert (job.retry_at, job.retry_count, job.last_error, job.enabled) == (after(40), 1, "ValueError: failure 1", True)
        await trio.sleep(100)
        assert worker.times == [10.0, 40.0]
        job = await scheduler.store.get_job(job_id)
        assert (job.retry_at, job.retry_count, job.last_error, job.enabled) == (None, 0, None, False)
        first, second = await history(scheduler, job_id)
        assert facts(first) == (RunStatus.FAILED, Cause.ERROR, Trigger.SCHEDULE, 1)
        assert facts(second) == (RunStatus.SUCCESS, None, Trigger.RETRY, 2)
        assert first.scheduled_at == second.scheduled_at == after(10)


async def test_retries_use_each_delay_then_repeat_the_last_until_none_is_left(virtual_clock: VirtualClock) -> None:
    worker = Worker(failures=99)
    async with open_scheduler(":memory:", worker) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", OneShot(after(0)), max_retries=6)
        await trio.sleep(86_400)
        delays = [30, 60, 300, 900, 3600, 3600]
        assert worker.times == [float(sum(delays[:count])) for count in range(7)]
        job = await scheduler.store.get_job(job_id)
        assert (job.enabled, job.retry_at, job.last_error) == (False, None, "ValueError: failure 7")


async def test_a_new_moment_replaces_a_pending_retry(virtual_clock: VirtualClock) -> None:
    worker = Worker(failures=1)
    async with open_scheduler(":memory:", worker, config=CronConfig(retry=RetryPolicy((90,)))) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", MINUTE)
        await trio.sleep(130)
        assert worker.times == [60.0, 120.0]
        assert [facts(run)[:2] for run in await history(scheduler, job_id)] == [
            (RunStatus.FAILED, Cause.ERROR),
            (RunStatus.CANCELLED, Cause.REPLACED),
            (RunStatus.SUCCESS, None),
        ]


async def test_an_executor_can_choose_the_delay_of_its_retry_or_give_up(virtual_clock: VirtualClock) -> None:
    times: list[float] = []

    async def executor(context: JobContext) -> None:
        times.append(trio.current_time())
        if len(times) == 1:
            raise Retry("busy there", after=7)
        raise GiveUp("gone there")

    async with open_scheduler(":memory:", executor) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", OneShot(after(1)))
        await trio.sleep(10_000)
        assert times == pytest.approx([1, 8])
        assert [(run.cause, run.error) for run in await history(scheduler, job_id)] == [
            (Cause.ERROR, "Retry: busy there"),
            (Cause.GAVE_UP, "GiveUp: gone there"),
        ]


@pytest.mark.parametrize("limit", [1, 3])
async def test_max_concurrent_runs_is_reached_and_never_exceeded(virtual_clock: VirtualClock, limit: int) -> None:
    worker = Worker(10)
    async with open_scheduler(":memory:", worker, config=slots(limit)) as scheduler:
        await scheduler.store.add_jobs([JobSpec(f"job {n}", "it", OneShot(after(5))) for n in range(6)])
        await trio.sleep(6)
        assert scheduler.health().runs_in_flight == limit
        await trio.sleep(1000)
        assert worker.most == limit
        assert worker.times == [5.0 + 10 * (n // limit) for n in range(6)]
        assert sorted(worker.names) == [f"job {n}" for n in range(6)]


async def test_runs_in_several_slots_wait_for_each_other_without_deadlock(virtual_clock: VirtualClock) -> None:
    arrived: list[str] = []
    all_arrived = trio.Event()

    async def executor(context: JobContext) -> None:
        arrived.append(context.job_name)
        if len(arrived) == 3:
            all_arrived.set()
        await all_arrived.wait()

    async with open_scheduler(":memory:", executor, config=slots(3)) as scheduler:
        await scheduler.store.add_jobs([JobSpec(name, "it", OneShot(after(1))) for name in "abc"])
        await trio.sleep(2)
        assert [run.status for run in await history(scheduler)] == [RunStatus.SUCCESS] * 3


async def test_delete_after_run_removes_the_job_after_a_success_and_keeps_its_history(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", Worker(failures=1)) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", MINUTE, delete_after_run=True)
        await trio.sleep(61)
        assert (await scheduler.store.get_job(job_id)).retry_at == after(90)
        await trio.sleep(60)
        with pytest.raises(JobNotFound):
            await scheduler.store.get_job(job_id)
        assert [run.status for run in await history(scheduler, job_id)] == [RunStatus.FAILED, RunStatus.SUCCESS]


async def test_a_loop_of_your_own_claims_finishes_and_retries_a_job(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        job_id = await store.add_job("job", "it", MINUTE, max_retries=1)
        assert await store.get_due_jobs() == []
        await trio.sleep(61)
        (due,) = await store.get_due_jobs()
        assert (due.id, due.next_run_at) == (job_id, after(60))
        run_id = await store.record_run_start(due)
        with pytest.raises(AlreadyClaimed):
            await store.record_run_start(due)
        assert await store.get_due_jobs() == []
        failed = await store.record_run_complete(run_id, RunStatus.FAILED, "no luck")
        assert (failed.status, failed.error) == (RunStatus.FAILED, "no luck")
        with pytest.raises(RunClosed):
            await store.record_run_complete(run_id, RunStatus.SUCCESS)
        assert await store.get_retry_jobs() == []
        await trio.sleep(30)
        (retried,) = await store.get_retry_jobs()
        assert (retried.id, retried.retry_at, retried.retry_count) == (job_id, after(91), 1)
        run_id = await store.record_run_start(retried)
        await store.record_run_complete(run_id, RunStatus.SUCCESS, "All clear", session_id="s")
        assert await store.get_retry_jobs() == await store.get_due_jobs() == []
        assert [(run.attempt, run.status, run.result_summary) for run in await store.list_runs(job_id, 10)] == [
            (2, RunStatus.SUCCESS, "All clear"),
            (1, RunStatus.FAILED, None),
        ]
        extra = await store.get_run(await store.record_run_start(job_id))
        assert (extra.trigger, (await store.get_job(job_id)).next_run_at) == (Trigger.MANUAL, after(120))


# Timeouts


async def test_a_timeout_cancels_the_task_and_fails_the_run(virtual_clock: VirtualClock) -> None:
    worker = Worker(math.inf)
    async with open_scheduler(":memory:", worker) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", OneShot(after(0)), timeout_secs=2.5, max_retries=1)
        await trio.sleep(2.4)
        assert worker.in_flight == 1
        await trio.sleep(0.2)
        assert worker.in_flight == 0
        await trio.sleep(100)
        assert worker.times == [0.0, 32.5]
        assert [(facts(run), run.error) for run in await history(scheduler, job_id)] == [
            ((RunStatus.FAILED, Cause.TIMEOUT, Trigger.SCHEDULE, 1), "timed out after 2.5 s"),
            ((RunStatus.FAILED, Cause.TIMEOUT, Trigger.RETRY, 2), "timed out after 2.5 s"),
        ]


async def test_nothing_of_a_job_starts_before_its_timed_out_task_has_exited(virtual_clock: VirtualClock) -> None:
    starts: list[float] = []

    async def executor(context: JobContext) -> None:
        starts.append(trio.current_time())
        if len(starts) == 1:
            with trio.CancelScope(shield=True):
                await trio.sleep(200)
            await trio.sleep(0)

    async with open_scheduler(":memory:", executor, config=slots(4)) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", MINUTE, timeout_secs=10)
        await trio.sleep(130)
        with pytest.raises(JobBusy):
            await scheduler.run_now(job_id)
        assert [run.status for run in await history(scheduler)] == [RunStatus.RUNNING]
        await trio.sleep(200)
        assert starts == pytest.approx([60, 290, 300])  # the first exits at 260, its retry starts at 290
        first, *others = await history(scheduler, job_id)
        assert (facts(first)[:2], first.completed_at) == ((RunStatus.FAILED, Cause.TIMEOUT), after(260))
        skipped = [run for run in others if run.status is RunStatus.SKIPPED]
        assert [(run.scheduled_at, run.coalesced, run.cause) for run in skipped] == [(after(120), 3, Cause.OVERLAP)]


# Sessions and overlap


async def test_runs_of_one_main_session_never_overlap_and_hold_no_slot_while_they_wait(virtual_clock: VirtualClock) -> None:
    in_flight: dict[str | None, int] = {}
    starts: list[tuple[float, str]] = []

    async def executor(context: JobContext) -> None:
        starts.append((trio.current_time(), context.job_name))
        if context.session_mode is SessionMode.MAIN:
            in_flight[context.user_id] = in_flight.get(context.user_id, 0) + 1
            assert in_flight[context.user_id] == 1
        await trio.sleep(10)
        if context.session_mode is SessionMode.MAIN:
            in_flight[context.user_id] -= 1

    async with open_scheduler(":memory:", executor, config=slots(3)) as scheduler:
        main = SessionMode.MAIN
        specs = [JobSpec(f"ann {n}", "it", OneShot(after(1)), session_mode=main, user_id="ann") for n in range(4)]
        specs += [JobSpec("bob", "it", OneShot(after(1)), session_mode=main, user_id="bob")]
        specs += [JobSpec("free", "it", OneShot(after(1)))]
        await scheduler.store.add_jobs(specs)
        await trio.sleep(100)
        assert {run.status for run in await history(scheduler)} == {RunStatus.SUCCESS}
        assert len(starts) == 6
        assert {name.split()[0] for at, name in starts if at < 2} == {"ann", "bob", "free"}
        assert [round(at) for at, name in starts if name.startswith("ann")] == [1, 11, 21, 31]


async def test_moments_that_come_due_during_a_run_are_skipped_unless_the_job_allows_all(virtual_clock: VirtualClock) -> None:
    worker = Worker(150)
    async with open_scheduler(":memory:", worker, config=slots(9)) as scheduler:
        skips = await scheduler.store.add_job("skips", "it", MINUTE)
        allows = await scheduler.store.add_job("allows", "it", MINUTE, overlap=Overlap.ALLOW_ALL)
        await trio.sleep(301)
        await scheduler.store.pause_job(skips)
        await scheduler.store.pause_job(allows)
        await trio.sleep(200)
        assert [(run.scheduled_at, run.status, run.coalesced) for run in await history(scheduler, skips)] == [
            (after(60), RunStatus.SUCCESS, 1),
            (after(120), RunStatus.SKIPPED, 2),
            (after(240), RunStatus.SUCCESS, 1),
            (after(300), RunStatus.SKIPPED, 1),  # it came due before the pause
        ]
        assert [run.scheduled_at for run in await history(scheduler, allows)] == [after(60 * n) for n in range(1, 6)]
        assert worker.most == 4


@pytest.mark.parametrize("early", [2, 50], ids=["claimed as early as the store waits for", "claimed earlier"])
async def test_in_real_time_no_run_starts_before_its_moment(tmp_path: Path, early: int) -> None:
    lateness: list[float] = []

    async def executor(context: JobContext) -> None:
        lateness.append((datetime.now(UTC) - context.scheduled_at).total_seconds())

    async with open_scheduler(tmp_path / "agent.db", executor) as scheduler:
        scheduler._actors.clock._early = early
        start = datetime.now(UTC) + timedelta(milliseconds=100)
        specs = [JobSpec(f"j{n}", "p", OneShot(start + timedelta(milliseconds=7 * n))) for n in range(20)]
        await scheduler.store.add_jobs(specs)
        with trio.fail_after(20):
            while len(lateness) < 20:
                await trio.sleep(0.05)  # real time: the storage thread sleeps too
        runs = await scheduler.store.list_runs(limit=20)
    assert min(lateness) >= 0
    assert all(run.started_at >= run.scheduled_at for run in runs)
