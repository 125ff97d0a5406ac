"""The output of runs across a crash, and while the store fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import cronactors
from cronactors import (
    CronScheduler,
    JobContext,
    RunStatus,
    current_run,
    open_scheduler,
    open_store,
)
from cronactors.actors.output import LiveRun
from cronactors.run_output import OUTPUT_HEAD, OUTPUT_TAIL
from cronactors.testing import VirtualClock
from tests.workers import history, once

CRASHING = """
import sys, trio
from cronactors import Interval, JobContext, JobSpec, current_run, open_scheduler

async def executor(ctx: JobContext) -> None:
    for number in range(1000):
        current_run().log(f"line {number}")
        current_run().report_progress(number / 1000)
        print(number, flush=True)
        await trio.sleep(0.05)

async def main() -> None:
    async with open_scheduler(sys.argv[1], executor, jobs=[JobSpec("job", "it", Interval(100))]):
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.slow
async def test_a_crash_keeps_the_lines_that_were_stored(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"

    async def executor(ctx: JobContext) -> None:
        await trio.sleep_forever()

    with subprocess.Popen([sys.executable, "-c", CRASHING, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "60\n":
            assert process.poll() is None
        process.kill()
    async with open_store(file, create=False) as store:
        (run,) = await store.list_runs()
        assert await store.get_progress(run.id) is not None
    async with open_scheduler(file, executor, shutdown_grace=0) as scheduler:
        (recovered,) = scheduler.recovered
        output = await scheduler.store.get_run_output(recovered.id)
        assert output.finished
        assert await scheduler.store.get_progress(recovered.id) is None
    lines = output.text.splitlines()
    assert lines
    assert lines == [f"line {number}" for number in range(len(lines))]


# A store that is slow or fails


class _Failing:
    """Lets the commits of a storage fail while it is on."""

    def __init__(self, scheduler: CronScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = False
        storage: Any = scheduler._actors.service.actor.storage
        commit = storage.commit

        def fail() -> None:
            if self.on:
                raise cronactors.StoreUnavailable("no space left")
            commit()

        monkeypatch.setattr(storage, "commit", fail)


async def test_lines_wait_in_bounded_memory_while_the_store_fails(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def executor(ctx: JobContext) -> None:
        run = current_run()
        for number in range(100):
            run.log(f"{number:03}" * 3333)
            run.report_progress(number / 100)
            await trio.sleep(0.5)
        live: Any = run
        assert isinstance(live, LiveRun)
        assert sum(len(piece.content) for piece in live._buffer.pieces()) <= OUTPUT_HEAD + OUTPUT_TAIL
        await trio.sleep(5)

    async with open_scheduler(":memory:", executor, jobs=[once()]) as scheduler:
        failing = _Failing(scheduler, monkeypatch)
        await trio.sleep(4)
        failing.on = True
        await trio.sleep(50)
        failing.on = False
        await trio.sleep(50)
        (run,) = await history(scheduler)
        assert run.status is RunStatus.SUCCESS, run.error
        output = await scheduler.store.get_run_output(run.id)
    assert output.cursor == 100 * 10_000
    assert output.left_out > 100 * 10_000 - OUTPUT_HEAD - OUTPUT_TAIL - 10_000
    head, _, tail = output.text.partition("… ")
    assert head.startswith("000000")
    assert tail.endswith("099099099\n")
    assert f"{output.left_out:,} bytes left out …\n" in tail


async def test_a_reply_that_is_lost_repeats_no_line(virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def executor(ctx: JobContext) -> None:
        for number in range(20):
            current_run().log(f"line {number}")
            await trio.sleep(1)

    async with open_scheduler(":memory:", executor, jobs=[once()]) as scheduler:
        storage: Any = scheduler._actors.service.actor.storage
        commit, count = storage.commit, 0

        def commit_and_fail() -> None:
            nonlocal count
            commit()
            count += 1
            if count % 3 == 0:
                raise cronactors.StoreUnavailable("the reply was lost")

        monkeypatch.setattr(storage, "commit", commit_and_fail)
        await trio.sleep(60)
        monkeypatch.setattr(storage, "commit", commit)
        (run,) = await history(scheduler)
        text = (await scheduler.store.get_run_output(run.id)).text
    assert text == "".join(f"line {number}\n" for number in range(20))
