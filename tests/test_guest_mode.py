"""A scheduler in trio's guest mode: inside the thread and the event loop of an asyncio program."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import outcome
import pytest
import trio

from cronactors import CronConfig, CronScheduler, Interval, JobContext, JobSpec, RunStatus, open_scheduler
from tests.workers import runs_in

pytestmark = pytest.mark.slow

Main = Callable[[], Awaitable[object]]


async def as_guest(main: Main) -> outcome.Outcome[object]:
    """Run trio as a guest of the running asyncio loop, and wait until it ends."""
    done = asyncio.get_running_loop().create_future()
    trio.lowlevel.start_guest_run(
        main,
        run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
        done_callback=done.set_result,
    )
    return await done


def specs(*names: str) -> list[JobSpec]:
    return [JobSpec(name, "it", Interval(100), max_retries=0) for name in names]


def test_a_guest_of_asyncio_runs_jobs_while_the_tasks_of_the_host_run(tmp_path: Path) -> None:
    beats, ran = [0], [0]
    threads = set(threading.enumerate())

    async def executor(ctx: JobContext) -> str:
        assert threading.current_thread() is threading.main_thread()
        await trio.sleep(0.01)
        ran[0] += 1
        if ctx.job_name == "fails":
            raise OSError("no luck")
        if ctx.job_name == "in a thread":
            await trio.to_thread.run_sync(lambda: None)
        return "done"

    async def main() -> str:
        config = CronConfig(max_concurrent_runs=4)
        jobs = specs("a", "in a thread", "fails")
        async with open_scheduler(tmp_path / "a.db", executor, config=config, jobs=jobs) as scheduler:
            await trio.sleep(1)  # real time: both loops have to share the thread
            requested = await scheduler.run_now(await scheduler.store.add_job("requested", "it", Interval.every(hours=1)))
            assert requested.status is RunStatus.SUCCESS
        return "left"

    async def host() -> outcome.Outcome[object]:
        async def beat() -> None:
            while True:
                await asyncio.sleep(0.01)
                beats[0] += 1

        beating = asyncio.create_task(beat())
        try:
            return await as_guest(main)
        finally:
            beating.cancel()

    assert asyncio.run(host()).unwrap() == "left"
    assert beats[0] > 20, "the host's own tasks keep running"
    assert ran[0] > 5
    runs = trio.run(runs_in, tmp_path / "a.db")
    assert {str(run.status) for run in runs} <= {"success", "failed", "skipped"}
    assert {run.job_name for run in runs if run.status is RunStatus.FAILED} == {"fails"}
    moments = [(run.job_name, run.scheduled_at) for run in runs]
    assert len(set(moments)) == len(moments)
    left = {thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")} - threads
    assert left == set()


def test_runs_are_interrupted_when_the_host_ends_the_guest_and_run_again_at_the_next_start(tmp_path: Path) -> None:
    events: list[str] = []

    async def executor(ctx: JobContext) -> None:
        events.append("started")
        try:
            await trio.sleep_forever()
        finally:
            events.append("cancelled")

    async def host() -> outcome.Outcome[object]:
        scope = trio.CancelScope()
        token: list[trio.lowlevel.TrioToken] = []

        async def main() -> None:
            token.append(trio.lowlevel.current_trio_token())
            with scope:
                async with open_scheduler(tmp_path / "a.db", executor, jobs=specs("a")):
                    await trio.sleep_forever()

        guest = asyncio.create_task(as_guest(main))
        while not events:
            await asyncio.sleep(0.01)
        token[0].run_sync_soon(scope.cancel)
        return await asyncio.wait_for(guest, 20)

    asyncio.run(host()).unwrap()
    assert events == ["started", "cancelled"]
    runs = trio.run(runs_in, tmp_path / "a.db")
    assert [str(run.status) for run in runs[:2]] == ["failed", "pending"]
    assert str(runs[0].cause) == "interrupted"

    async def main() -> None:
        async with open_scheduler(tmp_path / "a.db", nothing) as scheduler:
            await wait_until_run(scheduler, runs[1].id)

    async def nothing(ctx: JobContext) -> None:
        events.append(f"attempt {ctx.attempt}")

    async def again() -> outcome.Outcome[object]:
        return await asyncio.wait_for(as_guest(main), 20)

    asyncio.run(again()).unwrap()
    assert events[2] == "attempt 2"


async def wait_until_run(scheduler: CronScheduler, run_id: str) -> None:
    while (await scheduler.store.get_run(run_id)).status is not RunStatus.SUCCESS:
        await trio.sleep(0.01)


def test_an_exception_of_the_guests_block_reaches_the_host_as_itself(tmp_path: Path) -> None:
    async def executor(ctx: JobContext) -> None: ...

    async def main() -> None:
        async with open_scheduler(tmp_path / "a.db", executor):
            raise LookupError("of the user's own")

    async def host() -> outcome.Outcome[object]:
        return await asyncio.wait_for(as_guest(main), 20)

    with pytest.raises(LookupError, match="of the user's own"):
        asyncio.run(host()).unwrap()
