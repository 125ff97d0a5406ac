"""`cronactors explain` of runs that users requested."""

from __future__ import annotations

import trio

from cronactors import Interval, open_scheduler, open_store
from cronactors.testing import VirtualClock
from tests.cli.test_explain_command import executor, told


async def test_a_requested_run_waits_for_a_scheduler(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        job_id = await store.add_job("job", "it", Interval(3_600_000))
        async with open_scheduler(store, executor):
            await trio.sleep(5)
        await trio.sleep(25)
        run = await store.get_run(await store.request_run(job_id))
        await trio.sleep(90)
        waits = f"2026-01-01 00:00:30 UTC was requested 1 min 30 s ago (run {run.id}) and has not started: "
        assert await told(store, "job") == [
            "job: every 1 h, UTC",
            "It has had no moment yet: it was added at 2026-01-01 00:00:00 UTC.",
            f"{waits}no scheduler has been running since 2026-01-01 00:00:05 UTC.",
            "2026-01-01 01:00:00 UTC will run, in 58 min, unless a run of the job is still running then.",
        ]
        assert (await told(store, "job", "00:00"))[-2].startswith(waits)
        async with open_scheduler(store, executor):
            await trio.sleep(5)
        assert [line[:19] for line in await told(store, "job")][2:] == ["2026-01-01 01:00:00"]
        (_, first, ran, *_) = await told(store, "job", "00:00")
        assert first.startswith("2026-01-01 00:00:00 UTC is no moment of the job")
        assert ran == (
            f"2026-01-01 00:00:30 UTC was requested, and ran: run {run.id} started at 2026-01-01 00:02:00 UTC, 1 min 30 s late; "
            "success after 0.00 s."
        )


async def test_requested_runs_that_retry_and_that_did_not_start(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor) as scheduler:
        job_id = await scheduler.store.add_job("bad", "it", Interval(3_600_000), max_retries=1)
        await scheduler.store.request_run(job_id)
        await trio.sleep(5)
        assert (await told(scheduler.store, "bad"))[2] == (
            "2026-01-01 00:00:00 UTC was requested, and has not succeeded in 1 attempt (ValueError: no luck): "
            "attempt 2 may start at 2026-01-01 00:00:30 UTC."
        )
    async with open_store(":memory:") as store:
        job_id = await store.add_job("job", "it", Interval(3_600_000))
        await store.request_cancel(await store.request_run(job_id))
        assert (await told(store, "job", "00:00"))[2] == (
            "2026-01-01 00:00:05 UTC was requested, and was cancelled before it started: its cancellation was requested (cancelled)."
        )
