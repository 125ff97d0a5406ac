"""The watchdog: a blocked event loop is logged once, with its stack; an idle or busy one is not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from cronactors import Interval, JobContext, open_scheduler, open_store
from cronactors.actors import watchdog


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "RESPONSE_LIMIT", 0.1)


async def block_the_loop(context: JobContext) -> None:
    time.sleep(0.8)


async def test_a_blocked_loop_is_logged_once_with_its_stack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_scheduler(tmp_path / "db", block_the_loop) as scheduler:
        await scheduler.run_now(await scheduler.store.add_job("job", "SECRET", Interval.every(hours=1)))
        await trio.sleep(0.05)  # the loop responds
    lines = [record.getMessage() for record in caplog.records if record.name == "cronactors.watchdog"]
    assert [line.partition(" for ")[0].partition(" after ")[0] for line in lines] == [
        "event loop blocked",
        "event loop responsive again",
    ]
    assert "in block_the_loop" in lines[0]
    assert "SECRET" not in caplog.text


async def test_an_idle_or_busy_loop_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_store(tmp_path / "db"):
        await trio.sleep(0.5)  # real time, in which the loop is pinged
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            await trio.lowlevel.checkpoint()
    assert caplog.text == ""
