"""Requests to a scheduler: run a job, cancel a run, wait until idle, read its health; also across two schedulers of one file."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from cronactors import (
    Cause,
    Cron,
    CronConfig,
    Interval,
    JobBusy,
    JobContext,
    JobNotFound,
    JobSpec,
    OneShot,
    RunClosed,
    RunNotFound,
    RunStatus,
    SchedulerClosed,
    Trigger,
    WouldDeadlock,
    open_scheduler,
    open_store,
)
from cronactors.ledger import claim as ledger_claim
from cronactors.ledger.claim import Claims
from cronactors.storage.protocol import Storage
from cronactors.testing import VirtualClock
from tests.workers import MINUTE, START, Worker, after, facts, history

# Runs


async def test_a_run_requested_while_the_clock_inspects_the_file_starts_at_once(virtual_clock: VirtualClock) -> None:
    for _ in range(40):  # whether both are in one batch of the store depends on trio's order of tasks
        async with open_scheduler(":memory:", Worker()) as scheduler:
            job_id = await scheduler.store.add_job("job", "it", Cron("@daily"))
            with trio.fail_after(10):
                await scheduler.run_now(job_id)


async def test_run_now_returns_the_finished_run_and_keeps_the_next_moment(virtual_clock: VirtualClock) -> None:
    worker = Worker(5)
    async with open_scheduler(":memory:", worker) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", MINUTE)
        await trio.sleep(10)
        run = await scheduler.run_now(job_id)
        assert trio.current_time() == pytest.approx(15)
        assert (facts(run), run.result_summary) == ((RunStatus.SUCCESS, None, Trigger.MANUAL, 1), "did it")
        assert (await scheduler.store.get_job(job_id)).next_run_at == after(60)
        requested = await scheduler.run_now(job_id, wait=False)
        assert requested.status in (RunStatus.PENDING, RunStatus.RUNNING)
        await scheduler.wait_idle()
        assert (await scheduler.store.get_run(requested.id)).status is RunStatus.SUCCESS
        await trio.sleep(60)
        assert worker.times == [10.0, 15.0, 60.0]


async def test_run_now_returns_a_failed_attempt_without_waiting_for_the_retry(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", Worker(1, failures=9)) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Cron("@daily"))
        run = await scheduler.run_now(job_id)
        assert (run.status, run.error) == (RunStatus.FAILED, "ValueError: failure 1")
        assert trio.current_time() == pytest.approx(1)


async def test_cancelling_run_now_does_not_cancel_the_run(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", Worker(10)) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Cron("@daily"))
        with trio.move_on_after(3) as scope:
            await scheduler.run_now(job_id)
        assert scope.cancelled_caught
        await scheduler.wait_idle()
        assert [run.status for run in await history(scheduler)] == [RunStatus.SUCCESS]


async def test_run_now_runs_a_paused_job_and_refuses_a_busy_or_missing_one(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", Worker(10)) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", MINUTE)
        await scheduler.store.pause_job(job_id)
        assert (await scheduler.run_now(job_id)).status is RunStatus.SUCCESS
        await scheduler.run_now(job_id, wait=False)
        with pytest.raises(JobBusy, match="'job'"):
            await scheduler.run_now(job_id)
        with pytest.raises(JobNotFound):
            await scheduler.run_now("no such id")
        await trio.sleep(1000)
        assert len(await history(scheduler)) == 2
        assert not (await scheduler.store.get_job(job_id)).enabled


async def test_waiting_for_a_run_inside_a_run_or_a_notifier_is_refused_as_a_deadlock(virtual_clock: VirtualClock) -> None:
    refused: list[str] = []

    async def call(where: str) -> None:
        try:
            await scheduler.run_now(other)
        except WouldDeadlock as error:
            refused.append(f"{where}: {error}")
        if where == "run":
            await scheduler.run_now(other, wait=False)

    async def executor(context: JobContext) -> None:
        if context.job_name == "asks":
            async with trio.open_nursery() as nursery:  # in another task it is the same
                nursery.start_soon(call, "run")

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        if job_name == "asks":
            await call("notifier")

    async with open_scheduler(":memory:", executor, notifier=notifier) as scheduler:
        other = await scheduler.store.add_job("other", "it", Cron("@daily"))
        asks = await scheduler.store.add_job("asks", "it", Cron("@daily"))
        assert (await scheduler.run_now(asks)).status is RunStatus.SUCCESS
        await scheduler.wait_idle()
        assert [where.split(":")[0] for where in refused] == ["run", "notifier"]
        assert [run.job_name for run in await history(scheduler)] == ["asks", "other"]


async def test_wait_idle_inside_a_run_is_refused_too(virtual_clock: VirtualClock) -> None:
    async def executor(context: JobContext) -> None:
        await scheduler.wait_idle()

    async with open_scheduler(":memory:", executor) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Cron("@daily"), timeout_secs=60)
        run = await scheduler.run_now(job_id)
        assert run.error is not None
        assert run.error.startswith("WouldDeadlock")


async def test_cancel_run_of_a_pending_a_running_and_a_finished_run(virtual_clock: VirtualClock) -> None:
    worker = Worker(100)
    async with open_scheduler(":memory:", worker) as scheduler:
        first = await scheduler.store.add_job("first", "it", Cron("@daily"))
        second = await scheduler.store.add_job("second", "it", Cron("@daily"))
        running = await scheduler.run_now(first, wait=False)
        pending = await scheduler.run_now(second, wait=False)
        await trio.sleep(5)
        ended = await scheduler.cancel_run(pending.id)
        assert (ended.status, ended.cause, ended.started_at) == (RunStatus.CANCELLED, Cause.CANCELLED, None)
        ended = await scheduler.cancel_run(running.id)
        assert (ended.status, ended.cause, ended.completed_at) == (RunStatus.CANCELLED, Cause.CANCELLED, after(5))
        assert (worker.in_flight, worker.names) == (0, ["first"])
        with pytest.raises(RunClosed):
            await scheduler.cancel_run(running.id)
        with pytest.raises(RunNotFound):
            await scheduler.cancel_run("99")
        await trio.sleep(1000)
        assert worker.names == ["first"]  # cancelled is no failure: no retry


async def test_wait_idle_waits_for_due_runs_and_for_notifications(virtual_clock: VirtualClock) -> None:
    ended: list[float] = []

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        await trio.sleep(7)
        ended.append(trio.current_time())

    async with open_scheduler(":memory:", Worker(10), notifier=notifier) as scheduler:
        await scheduler.wait_idle()
        began = trio.current_time()
        assert began == pytest.approx(0, abs=1.01)
        await scheduler.store.add_jobs([JobSpec(name, "it", OneShot(START)) for name in "ab"])
        await scheduler.wait_idle()
        assert ended == pytest.approx([began + 17, began + 27])
        assert trio.current_time() - began == pytest.approx(27, abs=1.01)


async def test_waiting_calls_raise_when_the_scheduler_closes_although_the_store_stays_open(virtual_clock: VirtualClock) -> None:
    raised: list[str] = []

    async def wait(name: str, function: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(SchedulerClosed):
            await function()
        raised.append(name)

    async with open_store(":memory:") as store, trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 1000
        async with open_scheduler(store, Worker(100), shutdown_grace=1) as scheduler:
            busy = await store.add_job("busy", "it", Cron("@daily"))
            behind = await store.add_job("behind", "it", Cron("@daily"))
            await scheduler.run_now(busy, wait=False)
            await trio.sleep(1)
            nursery.start_soon(wait, "idle", scheduler.wait_idle)
            nursery.start_soon(wait, "run", lambda: scheduler.run_now(behind))
            await trio.sleep(1)
        await trio.sleep(10)
        assert sorted(raised) == ["idle", "run"]


# Runs that end outside of this scheduler, on virtual time, where no tick inspects the file


async def test_run_now_waits_for_a_run_that_another_scheduler_of_the_store_executes(virtual_clock: VirtualClock) -> None:
    workers = Worker(5), Worker(5)
    async with (
        open_store(":memory:") as store,
        open_scheduler(store, workers[0]) as one,
        open_scheduler(store, workers[1]) as two,
    ):
        job_id = await store.add_job("job", "it", Cron("@daily"))
        for round_ in range(1, 9):  # which scheduler claims it depends on trio's order of tasks
            for scheduler in (one, two):
                with trio.fail_after(3600):
                    assert (await scheduler.run_now(job_id)).status is RunStatus.SUCCESS
            assert trio.current_time() == pytest.approx(10 * round_)
        assert len(workers[0].seen) + len(workers[1].seen) == 16


async def test_cancel_run_waits_for_a_run_that_a_loop_of_the_users_own_finishes(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store, trio.open_nursery() as nursery, open_scheduler(store, Worker()) as scheduler:
        run_id = await store.record_run_start(await store.add_job("job", "it", Cron("@daily")))

        async def complete() -> None:
            await trio.sleep(10)
            await store.record_run_complete(run_id, "success")

        nursery.start_soon(complete)
        with trio.fail_after(3600):
            assert (await scheduler.cancel_run(run_id)).status is RunStatus.SUCCESS
        assert trio.current_time() == pytest.approx(10)


async def test_run_now_returns_a_pending_run_that_is_cancelled_with_its_job(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", Worker(10)) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", OneShot(after(1)), delete_after_run=True, overlap="buffer_all")
        await trio.sleep(2)
        with trio.fail_after(3600):
            run = await scheduler.run_now(job_id)
        assert (run.status, run.cause) == (RunStatus.CANCELLED, Cause.REMOVED)


async def test_health_shows_runs_and_the_next_wake(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", Worker(10)) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(30)))
        await trio.sleep(1)
        health = scheduler.health()
        assert (health.last_tick, health.next_wake) == (START, after(30))
        assert (health.runs_in_flight, health.last_store_error) == (0, None)
        assert (health.clock_lag, health.store_queue, health.store_latency, health.notifications_pending) == (0, 0, 0, 0)
        await trio.sleep(30)
        health = scheduler.health()
        assert (health.runs_in_flight, health.free_slots) == (1, 0)


async def test_health_shows_the_queues(virtual_clock: VirtualClock) -> None:
    async def notifier(*args: object) -> None:
        await trio.sleep(20)

    async with open_scheduler(":memory:", Worker(1), notifier=notifier, config=CronConfig(max_concurrent_runs=3)) as scheduler:
        for number in range(3):
            await scheduler.store.add_job(f"job {number}", "it", OneShot(after(0)))
        await trio.sleep(5)
        assert scheduler.health().notifications_pending == 3
        queues = []
        async with trio.open_nursery() as nursery:
            for _ in range(250):  # more than fit into one transaction
                nursery.start_soon(scheduler.store.list_jobs)
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                queues.append(scheduler.health().store_queue)
        assert max(queues) >= 100
        assert scheduler.health().store_queue == 0


async def test_health_shows_that_the_clock_woke_late(tmp_path: Path) -> None:
    async with open_scheduler(tmp_path / "db", Worker(0), tick_interval=0.05) as scheduler:
        await trio.sleep(0.02)
        time.sleep(0.2)  # blocks the event loop
        with trio.fail_after(10):
            while scheduler.health().clock_lag <= 0.1:  # of the last wake; on a busy machine the next one soon follows
                await trio.lowlevel.checkpoint()
        assert (scheduler.health().store_latency or 0) > 0


# Two schedulers of one file, in real time: on virtual time neither sees the changes of the other


TOGETHER = 0.02
"""The tick (s): how long one scheduler takes to see a change of the other."""


async def test_the_total_limit_counts_the_runs_of_all_schedulers_of_a_file(tmp_path: Path) -> None:
    worker = Worker(0.05)
    config = CronConfig(max_concurrent_runs=3, max_concurrent_runs_total=2)
    with trio.fail_after(20):
        async with (
            open_scheduler(tmp_path / "a.db", worker, config=config, tick_interval=TOGETHER) as one,
            open_scheduler(tmp_path / "a.db", worker, config=config, tick_interval=TOGETHER) as two,
        ):
            ids = await one.store.add_jobs([JobSpec(f"job {n}", "it", Cron("@yearly")) for n in range(8)])
            for n, job_id in enumerate(ids):
                await (one, two)[n % 2].run_now(job_id, wait=False)
            while len(await one.store.list_runs(status=RunStatus.SUCCESS)) < 8:
                await trio.sleep(TOGETHER)
    assert worker.most == 2
    assert sorted(worker.names) == [f"job {n}" for n in range(8)]


async def test_a_run_of_another_scheduler_is_requested_and_cancelled(tmp_path: Path) -> None:
    cancelled: list[str] = []

    async def executor(context: JobContext) -> str:
        if context.job_name == "short":
            return "done over there"
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(context.job_name)

    async def fails(context: JobContext) -> str:
        raise AssertionError("the other scheduler has the run")

    with trio.fail_after(20):
        async with (
            open_scheduler(tmp_path / "a.db", executor, tick_interval=TOGETHER, shutdown_grace=0) as theirs,
            open_store(tmp_path / "a.db") as store,
        ):
            short, endless = await store.add_jobs([JobSpec(name, "it", Cron("@yearly")) for name in ("short", "endless")])
            run_id = await store.request_run(short)
            while not (run := await store.get_run(run_id)).status.ended:
                await trio.sleep(TOGETHER)
            assert (run.status, run.result_summary) == (RunStatus.SUCCESS, "done over there")
            run_id = await store.request_run(endless)
            while not theirs.health().runs_in_flight:
                await trio.sleep(TOGETHER)
            async with open_scheduler(tmp_path / "a.db", fails, tick_interval=TOGETHER) as mine:
                ended = await mine.cancel_run(run_id)
    assert (ended.status, ended.cause) == (RunStatus.CANCELLED, Cause.CANCELLED)
    assert cancelled == ["endless"]


async def test_two_schedulers_of_a_file_run_each_moment_once(tmp_path: Path) -> None:
    worker = Worker()
    with trio.fail_after(20):
        async with (
            open_scheduler(tmp_path / "a.db", worker, tick_interval=TOGETHER) as one,
            open_scheduler(tmp_path / "a.db", worker, tick_interval=TOGETHER),
        ):
            await one.store.add_job("job", "it", Interval(50))
            while len(worker.seen) < 10:
                await trio.sleep(TOGETHER)
    moments = [context.scheduled_at for _, context in worker.seen]
    assert len(set(moments)) == len(moments)


async def test_a_store_that_is_slower_than_the_tick_still_runs_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_due = ledger_claim.claim_due
    claims: list[int] = []

    def slow(storage: Storage, **options: Any) -> Claims:
        claims.append(1)
        time.sleep(0.05)  # real: on the storage thread, as a disk would
        return claim_due(storage, **options) if len(claims) > 2 else Claims([])  # as when another process was faster

    monkeypatch.setattr(ledger_claim, "claim_due", slow)
    worker = Worker()
    with trio.fail_after(20):
        async with open_scheduler(tmp_path / "a.db", worker, tick_interval=0.01) as scheduler:
            await scheduler.store.add_job("job", "it", Interval(20))
            while len(worker.seen) < 5:
                await trio.sleep(TOGETHER)
