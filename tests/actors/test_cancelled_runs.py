"""Runs that are cancelled from outside, or claimed while everything is being cancelled; and strays that come late."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from cronactors import Cause, CronConfig, JobContext, OneShot, RunStatus, open_scheduler, open_store
from cronactors.actors.actor_requests import FinishRun
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.stopping import STOP_LIMIT
from cronactors.storage import connection
from cronactors.testing import VirtualClock
from tests.workers import after, history


async def test_a_run_cancelled_from_outside_before_its_timeout_is_interrupted(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    """At 5 s it is cancelled; executor and body both clean up, shielded, beyond the timeout at 10 s."""

    async def executor(context: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(8)

    with trio.CancelScope(deadline=5):
        async with open_scheduler(tmp_path / "a.db", executor, shutdown_grace=0) as scheduler:
            await scheduler.store.add_job("job", "it", OneShot(after(1)), timeout_secs=9, max_retries=0)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(20)
    async with open_store(tmp_path / "a.db") as store:
        ended = [run for run in await store.list_runs() if run.status is not RunStatus.PENDING]
    assert [(run.status, run.cause) for run in ended] == [(RunStatus.FAILED, Cause.INTERRUPTED)]


async def test_a_claimed_run_that_no_runner_takes_does_not_hold_up_the_stop_while_the_file_is_locked(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_BUSY_MS", 0)

    async def executor(context: JobContext) -> None:
        await trio.sleep(1)

    async with open_store(tmp_path / "a.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        left: list[float] = []
        with trio.CancelScope() as outer:
            async with open_scheduler(tmp_path / "a.db", executor, shutdown_grace=0) as scheduler:
                await scheduler.store.add_job("job", "it", OneShot(after(10)))
                await trio.sleep(5)

                def on_commit(_: object) -> None:
                    if trio.current_time() >= 10 and not left:
                        left.append(trio.current_time())
                        other.execute("BEGIN IMMEDIATE")
                        outer.cancel()

                scheduler._actors.service.actor.listeners.append(on_commit)
                await trio.sleep_forever()
    assert left == [10]
    assert trio.current_time() < 10 + 3 * STOP_LIMIT


@pytest.fixture
def stray_while_finishing(monkeypatch: pytest.MonkeyPatch):
    """Start a task in the nursery around an executor, while its run is being finished; for the first run only."""
    nurseries: list[trio.Nursery] = []
    tasks = []
    call = Mailbox.call

    async def calling(self: Mailbox, request, *args: object):
        if isinstance(request, FinishRun) and len(nurseries) == 1 and tasks:
            nurseries[0].start_soon(tasks.pop())
        return await call(self, request, *args)

    monkeypatch.setattr(Mailbox, "call", calling)
    return nurseries, tasks


async def test_a_task_that_fails_while_the_run_is_being_finished_changes_nothing_but_the_log(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, stray_while_finishing
) -> None:
    caplog.set_level(logging.INFO, "cronactors")
    nurseries, tasks = stray_while_finishing

    async def executor(context: JobContext) -> None:
        nurseries.append(trio.lowlevel.current_task().parent_nursery)

    async def stray() -> None:
        raise ValueError("a stray")

    tasks.append(stray)
    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(10)))
        await trio.sleep(20)
        [run] = await history(scheduler)
        assert run.status is RunStatus.SUCCESS
    assert "a task that an executor left in its nursery failed: ValueError: a stray" in caplog.messages
    assert not [message for message in caplog.messages if message.startswith(f"run {run.id} of job")]


async def test_a_task_that_appears_while_the_run_is_being_finished_does_not_keep_the_next_run_waiting(
    virtual_clock: VirtualClock, stray_while_finishing
) -> None:
    nurseries, tasks = stray_while_finishing
    ran: list[str] = []

    async def executor(context: JobContext) -> None:
        ran.append(context.job_name)
        nurseries.append(trio.lowlevel.current_task().parent_nursery)

    async def stray() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1000)

    tasks.append(stray)
    async with open_scheduler(":memory:", executor, config=CronConfig(max_concurrent_runs=1), shutdown_grace=0) as scheduler:
        await scheduler.store.add_job("first", "it", OneShot(after(10)))
        await scheduler.store.add_job("second", "it", OneShot(after(20)))
        await trio.sleep(30)
        for _ in range(3):
            scheduler._actors.patrol.request()
            await trio.sleep(1)
        await trio.sleep(2000)
        assert [(run.job_name, run.status) for run in await history(scheduler)] == [
            ("first", RunStatus.SUCCESS),
            ("second", RunStatus.SUCCESS),
        ]
    assert ran == ["first", "second"]
