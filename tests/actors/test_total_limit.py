"""The limit over all schedulers: what waits for it waits no longer than it has to, and nothing spins."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from cronactors import CronConfig, Interval, JobContext, OneShot, Overlap, now, open_scheduler, open_store
from cronactors.testing import VirtualClock
from tests.workers import after

TOTAL_OF_ONE = CronConfig(max_concurrent_runs=2, max_concurrent_runs_total=1)


async def test_a_full_total_does_not_stop_the_cancelling_of_overlapped_runs(virtual_clock: VirtualClock) -> None:
    cancelled_at: list[float] = []

    async def executor(context: JobContext) -> None:
        if context.job_name == "replaced":
            try:
                await trio.sleep_forever()
            finally:
                cancelled_at.append(trio.current_time())

    async with open_scheduler(":memory:", executor, config=TOTAL_OF_ONE, shutdown_grace=0) as scheduler:
        await scheduler.store.add_job("replaced", "it", Interval(60_000), overlap=Overlap.CANCEL_OTHER, timeout_secs=3600)
        await trio.sleep(70)
        await scheduler.store.add_job("other", "it", OneShot(after(90)))
        await trio.sleep(130)
        assert cancelled_at[:1] == [120]


async def test_a_total_that_another_scheduler_uses_up_does_not_hide_the_next_moment(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    ran: list[float] = []

    async def slow(context: JobContext) -> None:
        await trio.sleep(30)

    async def executor(context: JobContext) -> None:
        ran.append(trio.current_time())

    async def first(task_status: trio.TaskStatus[None]) -> None:
        async with open_scheduler(tmp_path / "a.db", slow, config=TOTAL_OF_ONE, shutdown_grace=50) as scheduler:
            await scheduler.store.add_job("job", "it", OneShot(after(60)))
            await scheduler.store.add_job("slow", "it", OneShot(after(1)))
            await trio.sleep(2)
            task_status.started()
            await trio.sleep(2)

    async with trio.open_nursery() as nursery:
        await nursery.start(first)
        async with open_scheduler(tmp_path / "a.db", executor, config=TOTAL_OF_ONE):
            await trio.sleep(100)
            assert ran == [60]


@pytest.mark.slow
async def test_two_schedulers_at_the_total_do_not_wake_each_other_for_ever(tmp_path: Path) -> None:
    async def executor(context: JobContext) -> None:
        await trio.sleep(100)

    async with open_store(tmp_path / "a.db") as store, AsyncExitStack() as stack:
        one = await stack.enter_async_context(open_scheduler(store, executor, config=TOTAL_OF_ONE, shutdown_grace=0))
        for name in "abc":
            await store.add_job(name, "it", OneShot(now() + timedelta(seconds=0.2)))
        await trio.sleep(0.5)
        await stack.enter_async_context(open_scheduler(store, executor, config=TOTAL_OF_ONE, shutdown_grace=0))
        before = one._actors.clock.wakes
        await trio.sleep(2)
        assert one._actors.clock.wakes - before < 40, "ten times as many as ticks"
