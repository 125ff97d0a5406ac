"""The watchdog: a blocked loop is reported once, with the place; one that is only idle is not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from cronactors import Interval, JobContext, open_scheduler, open_store
from cronactors.actors import watchdog


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "SILENCE", 0.1)


async def block_the_loop(context: JobContext) -> None:
    time.sleep(0.8)


async def test_a_blocked_loop_is_reported_once_with_the_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_scheduler(tmp_path / "db", block_the_loop) as scheduler:
        await scheduler.run_now(await scheduler.store.add_job("job", "SECRET", Interval.every(hours=1)))
        await trio.sleep(0.05)  # the answer of the loop
    told = [record.getMessage() for record in caplog.records if record.name == "cronactors.watchdog"]
    assert [line.partition(" for ")[0].partition(" after ")[0] for line in told] == [
        "the loop has been blocked",
        "the loop goes on",
    ]
    assert "in block_the_loop" in told[0]
    assert "SECRET" not in caplog.text


async def test_a_loop_that_is_idle_or_busy_is_not_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_store(tmp_path / "db"):
        await trio.sleep(0.5)  # real time, in which it is asked
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            await trio.lowlevel.checkpoint()
    assert caplog.text == ""
