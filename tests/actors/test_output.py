"""The writer of output: what a run reports is stored once a second and with its finish, however the run ends."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from cronactors import (
    Cause,
    CurrentRun,
    JobContext,
    JobSpec,
    OneShot,
    RunStatus,
    current_run,
    now,
    open_scheduler,
    open_store,
)
from cronactors.actors import output
from cronactors.actors.forks import generation
from cronactors.actors.output import LiveRun
from cronactors.ledger.run_output import NewOutput
from cronactors.testing import VirtualClock
from tests.workers import history, once, run_once, slots

# Reading from another process


async def test_lines_and_progress_are_read_while_the_run_is_running(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async def executor(ctx: JobContext) -> None:
        for number in range(10):
            current_run().report_progress(number / 10, f"page {number}")
            current_run().log(f"read page {number}")
            await trio.sleep(10)

    file = tmp_path / "agent.db"
    async with open_scheduler(file, executor, jobs=[once()]) as scheduler, open_store(file, create=False) as other:
        await trio.sleep(24)
        (run,) = await other.list_runs(status=RunStatus.RUNNING)
        output, progress = await other.get_run_output(run.id), await other.get_progress(run.id)
        assert output.text == "read page 0\nread page 1\nread page 2\n"
        assert not output.finished
        assert progress is not None
        assert (progress.fraction, progress.note) == (0.2, "page 2")
        assert timedelta(0) <= now() - progress.at <= timedelta(seconds=4)
        await trio.sleep(100)
        rest = await other.get_run_output(run.id, since=output.cursor)
        assert rest.text == "".join(f"read page {number}\n" for number in range(3, 10))
        assert rest.finished
        assert await other.get_progress(run.id) is None
        assert (await scheduler.store.get_run(run.id)).status is RunStatus.SUCCESS


async def test_all_runs_together_write_once_a_second_and_their_rows_never(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async def executor(ctx: JobContext) -> None:
        for number in range(1000):
            current_run().log(f"line {number}")
            current_run().report_progress(number / 1000)
            await trio.sleep(0.01)

    async with open_scheduler(tmp_path / "agent.db", executor, config=slots(5)) as scheduler:
        at = OneShot(now() + timedelta(seconds=1))
        await scheduler.store.add_jobs([JobSpec(name, "it", at) for name in "abcde"])
        await trio.sleep(2)
        storage: Any = scheduler._actors.service.actor.storage
        statements: list[str] = []
        storage._db.set_trace_callback(statements.append)
        await trio.sleep(5)
        storage._db.set_trace_callback(None)
    assert 4 <= sum(statement.startswith("COMMIT") for statement in statements) <= 6
    assert not [statement for statement in statements if statement.startswith("UPDATE runs")]


async def test_much_output_is_written_in_several_commits(virtual_clock: VirtualClock) -> None:
    async def executor(ctx: JobContext) -> None:
        await trio.sleep(1)
        current_run().log("x" * 100_000)
        await trio.sleep(10)

    async with open_scheduler(":memory:", executor, config=slots(10)) as scheduler:
        at = OneShot(now() + timedelta(seconds=1))
        ids = await scheduler.store.add_jobs([JobSpec(f"job {number}", "it", at) for number in range(10)])
        await trio.sleep(1.5)
        storage: Any = scheduler._actors.service.actor.storage
        statements: list[str] = []
        storage._db.set_trace_callback(statements.append)
        await trio.sleep(3)
        storage._db.set_trace_callback(None)
        for (run,) in [await history(scheduler, job_id) for job_id in ids]:
            assert len((await scheduler.store.get_run_output(run.id)).text) == 100_001
    assert sum(statement.startswith("COMMIT") for statement in statements) == 4  # of 3, 3, 3 and 1 run


async def test_a_run_that_reports_nothing_writes_nothing(virtual_clock: VirtualClock) -> None:
    async def executor(ctx: JobContext) -> None:
        await trio.sleep(1)

    async with open_scheduler(":memory:", executor, jobs=[once()]) as scheduler:
        storage: Any = scheduler._actors.service.actor.storage
        statements: list[str] = []
        storage._db.set_trace_callback(statements.append)
        await trio.sleep(100)
        storage._db.set_trace_callback(None)
    assert any("runs" in statement for statement in statements)
    assert not [statement for statement in statements if "run_output" in statement]


# However the run ends, its lines are kept


async def test_the_last_lines_of_a_run_are_stored_with_its_finish(virtual_clock: VirtualClock) -> None:
    async def executor(ctx: JobContext) -> None:
        current_run().log("first")
        await trio.sleep(0.3)
        current_run().log("last")

    run, text = await run_once(executor)
    assert (run.status, text) == (RunStatus.SUCCESS, "first\nlast\n")


async def test_the_lines_of_a_failed_run_are_kept(virtual_clock: VirtualClock) -> None:
    async def executor(ctx: JobContext) -> None:
        current_run().log("before")
        raise ValueError("no")

    run, text = await run_once(executor)
    assert (run.status, text) == (RunStatus.FAILED, "before\n")


async def test_the_lines_of_a_timed_out_run_are_kept_and_those_of_its_cleanup(virtual_clock: VirtualClock) -> None:
    async def executor(ctx: JobContext) -> None:
        current_run().report_progress(0.5)
        try:
            while True:
                current_run().log("at work")
                await trio.sleep(4)
        finally:
            current_run().log("cleaning up")

    async with open_scheduler(":memory:", executor, jobs=[once(timeout_secs=10, max_retries=0)]) as scheduler:
        await trio.sleep(60)
        (run,) = await history(scheduler)
        assert run.cause is Cause.TIMEOUT
        assert (await scheduler.store.get_run_output(run.id)).text == "at work\n" * 3 + "cleaning up\n"
        assert await scheduler.store.get_progress(run.id) is None


async def test_the_lines_of_a_cancelled_run_are_kept(virtual_clock: VirtualClock) -> None:
    async def executor(ctx: JobContext) -> None:
        current_run().log("started")
        try:
            await trio.sleep_forever()
        finally:
            current_run().log("cancelled")

    async with open_scheduler(":memory:", executor, jobs=[once()]) as scheduler:
        await trio.sleep(5)
        (run,) = await history(scheduler)
        await scheduler.store.request_cancel(run.id)
        await trio.sleep(5)
        assert (await scheduler.store.get_run(run.id)).status is RunStatus.CANCELLED
        assert (await scheduler.store.get_run_output(run.id)).text == "started\ncancelled\n"


@pytest.mark.parametrize("outside", [False, True], ids=["the block ends", "cancelled from outside"])
async def test_the_lines_of_a_run_that_a_shutdown_interrupts_are_kept(
    virtual_clock: VirtualClock, tmp_path: Path, outside: bool
) -> None:
    async def executor(ctx: JobContext) -> None:
        current_run().report_progress(0.1)
        current_run().log("started")
        try:
            await trio.sleep_forever()
        finally:
            current_run().log("interrupted")

    file = tmp_path / "agent.db"
    with trio.CancelScope() as scope:
        async with open_scheduler(file, executor, jobs=[once()], shutdown_grace=3):
            await trio.sleep(5)
            if outside:
                scope.cancel()
                await trio.lowlevel.checkpoint()
    async with open_store(file, create=False) as store:
        run = (await store.list_runs())[-1]
        assert run.cause is Cause.INTERRUPTED
        assert (await store.get_run_output(run.id)).text == "started\ninterrupted\n"
        assert await store.get_progress(run.id) is None


async def test_the_writer_works_during_the_grace_of_a_stop(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    file, seen = tmp_path / "agent.db", []

    async def executor(ctx: JobContext) -> None:
        await trio.sleep(10)
        current_run().log("in the grace")
        await trio.sleep(5)
        async with open_store(file, create=False) as store:
            seen.append((await store.get_run_output(ctx.run_id)).text)

    async with open_scheduler(file, executor, jobs=[once()], shutdown_grace=60):
        await trio.sleep(5)
    assert seen == ["in the grace\n"]


async def test_what_is_reported_after_the_end_is_ignored(virtual_clock: VirtualClock) -> None:
    runs: list[CurrentRun] = []

    async def executor(ctx: JobContext) -> None:
        runs.append(current_run())
        current_run().log("in time")

    async with open_scheduler(":memory:", executor, jobs=[once()]) as scheduler:
        await trio.sleep(10)
        runs[0].log("too late")
        runs[0].report_progress(1)
        await trio.sleep(10)
        assert (await scheduler.store.get_run_output(runs[0].run_id)).text == "in time\n"
        assert await scheduler.store.get_progress(runs[0].run_id) is None
    runs[0].log("after the block")
    runs[0].report_progress(1)


async def test_what_a_forked_child_reports_is_ignored(virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def executor(ctx: JobContext) -> None:
        current_run().log("parent")
        with monkeypatch.context() as child:
            child.setattr(output, "generation", lambda: generation() + 1)
            current_run().log("child")
            current_run().report_progress(0.5)

    run, text = await run_once(executor)
    assert (run.status, text) == (RunStatus.SUCCESS, "parent\n")


async def test_a_handler_of_a_signal_may_log_in_the_middle_of_a_write(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_stored = LiveRun.not_stored

    def interrupted(self: LiveRun) -> NewOutput | None:
        for run in runs:
            run.log("from the handler")
        return not_stored(self)

    runs: list[CurrentRun] = []

    async def executor(ctx: JobContext) -> None:
        runs.append(current_run())
        for _ in range(3):
            current_run().log("line")
            await trio.sleep(1.5)

    monkeypatch.setattr(LiveRun, "not_stored", interrupted)
    async with open_scheduler(":memory:", executor, config=slots(3)) as scheduler:
        at = OneShot(now() + timedelta(seconds=1))
        await scheduler.store.add_jobs([JobSpec(name, "it", at) for name in "abc"])
        await trio.sleep(20)
        for run in await history(scheduler):
            assert run.status is RunStatus.SUCCESS
            lines = (await scheduler.store.get_run_output(run.id)).text.splitlines()
            assert lines.count("line") == 3
            assert "from the handler" in lines


def test_a_thread_that_outlives_trio_may_still_log() -> None:
    go, done = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def left_behind() -> None:
        run = current_run()
        go.wait(30)
        try:
            run.log("too late")
            run.report_progress(0.5)
        except BaseException as error:
            failures.append(error)
        done.set()

    async def executor(ctx: JobContext) -> None:
        await trio.to_thread.run_sync(left_behind, abandon_on_cancel=True)

    async def main() -> None:
        async with open_scheduler(":memory:", executor, jobs=[once()], shutdown_grace=0) as scheduler:
            with trio.fail_after(30):
                while not scheduler.health().runs_in_flight:
                    await trio.sleep(0.01)
            await trio.sleep(0.1)

    trio.run(main)
    go.set()
    assert done.wait(30)
    assert failures == []
