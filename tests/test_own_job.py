"""Executors that use the store of their own job: they edit, pause, cancel and remove it."""

from __future__ import annotations

import pytest
import trio

from cronactors import (
    Cause,
    Cron,
    Interval,
    JobContext,
    JobNotFound,
    RunStatus,
)
from cronactors.testing import VirtualClock
from tests.test_hostile import START, beside_a_neighbour


async def test_an_executor_may_remove_its_own_job(virtual_clock: VirtualClock) -> None:
    async def act(context: JobContext) -> str:
        await scheduler.store.remove_job(context.job_id)
        await trio.sleep(1)
        return "gone"

    async with beside_a_neighbour(act) as (scheduler, bad, _):
        await trio.sleep(150)
        with pytest.raises(JobNotFound):
            await scheduler.store.get_job(bad)
        assert [(run.status, run.result_summary) for run in await scheduler.store.list_runs(bad)] == [(RunStatus.SUCCESS, "gone")]


async def test_an_executor_may_edit_its_own_job_and_finishing_overwrites_nothing(virtual_clock: VirtualClock) -> None:
    async def act(context: JobContext) -> str:
        await scheduler.store.update_job(
            context.job_id, prompt=context.prompt + "!", schedule=Interval(100_000), timeout_secs=7, max_retries=5
        )
        await trio.sleep(1)
        return context.prompt

    async with beside_a_neighbour(act) as (scheduler, bad, _):
        await trio.sleep(70)
        job = await scheduler.store.get_job(bad)
        assert (job.prompt, job.schedule, job.timeout_secs, job.max_retries) == ("it!", Interval(100_000), 7, 5)
        assert job.next_run_at is not None
        assert (job.next_run_at - START).total_seconds() == 160
        await trio.sleep(100)
        assert [run.result_summary for run in await scheduler.store.list_runs(bad)] == ["it!", "it"]


async def test_an_executor_may_pause_its_own_job(virtual_clock: VirtualClock) -> None:
    async def act(context: JobContext) -> None:
        await scheduler.store.pause_job(context.job_id)
        raise ValueError("and fail")

    async with beside_a_neighbour(act) as (scheduler, bad, _):
        await trio.sleep(500)
        assert [run.error for run in await scheduler.store.list_runs(bad)] == ["ValueError: and fail"]
        assert not (await scheduler.store.get_job(bad)).enabled


async def test_an_executor_may_add_jobs_and_request_runs(virtual_clock: VirtualClock) -> None:
    ids: list[str] = []

    async def act(context: JobContext) -> None:
        if context.job_name == "bad":
            ids.append(await scheduler.store.add_job(f"child {len(ids)}", "it", Cron("@yearly")))
            await scheduler.run_now(ids[-1], wait=False)

    async with beside_a_neighbour(act) as (scheduler, _, _neighbour):
        await trio.sleep(150)
        runs = [await scheduler.store.list_runs(job_id) for job_id in ids]
        assert [[run.status for run in of_one] for of_one in runs] == [[RunStatus.SUCCESS]] * 2


async def test_an_executor_that_cancels_its_own_run_is_cancelled(virtual_clock: VirtualClock) -> None:
    async def act(context: JobContext) -> None:
        await scheduler.cancel_run(context.run_id)

    async with beside_a_neighbour(act) as (scheduler, bad, _):
        await trio.sleep(70)
        (run,) = await scheduler.store.list_runs(bad)
        assert (run.status, run.cause) == (RunStatus.CANCELLED, Cause.CANCELLED)
