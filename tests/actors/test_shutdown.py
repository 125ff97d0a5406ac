"""How a scheduler ends: what becomes of its runs, and that nothing stays behind."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import trio

from cronactors import (
    Cause,
    Cron,
    CronConfig,
    CronScheduler,
    Interval,
    JobContext,
    OneShot,
    RunStatus,
    SchedulerClosed,
    Trigger,
    open_scheduler,
    open_store,
)
from cronactors.testing import VirtualClock
from tests.workers import START, Sleeper, after, nothing, runs_in, start_jobs

# What becomes of runs


async def test_runs_may_end_by_themselves_within_the_grace(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    sleeper = Sleeper(6)
    async with open_scheduler(tmp_path / "a.db", sleeper, shutdown_grace=10) as scheduler:
        await start_jobs(scheduler)
    assert sleeper.exits == [("done", pytest.approx(6))]
    assert trio.current_time() == pytest.approx(6)  # and not a moment longer
    assert [run.status for run in await runs_in(tmp_path / "a.db")] == [RunStatus.SUCCESS]


async def test_after_the_grace_runs_are_put_back_and_run_by_the_next_scheduler(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    file = tmp_path / "a.db"
    sleeper = Sleeper()
    async with open_scheduler(file, sleeper, shutdown_grace=10, config=CronConfig(max_concurrent_runs=2)) as scheduler:
        await start_jobs(scheduler, "a", "b", "waits")
    assert sleeper.exits == [("cancelled", pytest.approx(11))] * 2
    runs = await runs_in(file)
    assert [(run.status, run.cause) for run in runs] == [
        (RunStatus.FAILED, Cause.INTERRUPTED),
        (RunStatus.FAILED, Cause.INTERRUPTED),
        (RunStatus.PENDING, None),
        (RunStatus.PENDING, None),
    ]
    sleeper.seconds = 1
    async with open_scheduler(file, sleeper) as scheduler:
        assert scheduler.recovered == ()  # it was no crash
        await trio.sleep(10)
        jobs = {job.name: job for job in await scheduler.store.list_jobs()}
        assert {job.retry_count for job in jobs.values()} == {0}
    again = sorted(sleeper.contexts[2:], key=lambda context: context.job_name)
    assert [(context.job_name, context.attempt, context.scheduled_at) for context in again] == [
        ("a", 2, after(0)),
        ("b", 2, after(0.001)),
        ("waits", 1, after(0.002)),
    ]
    assert {run.trigger for run in await runs_in(file) if run.attempt == 2} == {Trigger.RECOVERY}


async def test_cancelled_from_outside_there_is_no_grace(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    sleeper = Sleeper()
    with trio.move_on_after(5) as scope:
        async with open_scheduler(file, sleeper, config=CronConfig(max_concurrent_runs=2)) as scheduler:
            await start_jobs(scheduler, "a", "b")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(5)
    assert sleeper.exits == [("cancelled", pytest.approx(5))] * 2
    assert (
        sorted((run.status, run.cause, run.attempt) for run in await runs_in(file) if run.attempt == 1)
        == [(RunStatus.FAILED, Cause.INTERRUPTED, 1)] * 2
    )
    sleeper.seconds = 1
    async with open_scheduler(file, sleeper) as scheduler:
        await trio.sleep(5)
        assert {job.retry_count for job in await scheduler.store.list_jobs()} == {0}
    assert sorted((context.job_name, context.attempt) for context in sleeper.contexts[2:]) == [("a", 2), ("b", 2)]
    assert [run.status for run in await runs_in(file)][2:] == [RunStatus.SUCCESS] * 2


async def test_cancelled_in_the_grace_it_ends(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    sleeper = Sleeper()
    with trio.move_on_after(5):
        async with open_scheduler(tmp_path / "a.db", sleeper, shutdown_grace=50) as scheduler:
            await start_jobs(scheduler)
    assert sleeper.exits == [("cancelled", pytest.approx(5))]
    assert (await runs_in(tmp_path / "a.db"))[0].cause is Cause.INTERRUPTED


async def test_interruptions_of_orderly_ends_never_cost_a_retry(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    sleeper = Sleeper()
    for round_ in range(6):
        async with open_scheduler(tmp_path / "a.db", sleeper, shutdown_grace=0) as scheduler:
            if round_ == 0:
                await scheduler.store.add_job("job", "it", OneShot(START), max_retries=0)
            await trio.sleep(1)
    assert [context.attempt for context in sleeper.contexts] == [1, 2, 3, 4, 5, 6]


async def test_executors_use_the_store_in_the_grace_and_no_run_begins(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    done: list[str] = []

    async def executor(context: JobContext) -> None:
        await trio.sleep(3)
        await scheduler.store.add_job(f"next of {context.job_name}", "it", Interval(1000))
        other = await scheduler.store.get_job_by_name("b" if context.job_name == "a" else "a")
        assert other is not None
        await scheduler.run_now(other.id, wait=False)
        done.append(context.job_name)

    async with open_scheduler(tmp_path / "a.db", executor) as scheduler:
        await start_jobs(scheduler, "a", "b")
    assert len(done) == 1
    runs = await runs_in(tmp_path / "a.db")
    assert [(run.status, run.trigger) for run in runs] == [
        (RunStatus.SUCCESS, Trigger.SCHEDULE),
        (RunStatus.PENDING, Trigger.MANUAL),
    ]
    async with open_store(tmp_path / "a.db") as store:
        assert len(await store.list_jobs()) == 3


async def test_a_shielded_executor_delays_the_end_and_is_reported_with_its_stack(
    virtual_clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn(context: JobContext) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async with open_scheduler(tmp_path / "a.db", stubborn, shutdown_grace=1, config=CronConfig(cancel_grace=5)) as scheduler:
        await start_jobs(scheduler)
    assert trio.current_time() == pytest.approx(60)
    (report,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "is still running 5.0 s after it was cancelled (interrupted)" in report.getMessage()
    assert "in stubborn" in report.getMessage()
    assert [run.status for run in await runs_in(tmp_path / "a.db")] == [RunStatus.SUCCESS]


async def test_nothing_works_after_the_end(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async with open_scheduler(tmp_path / "a.db", nothing) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Cron("@daily"))
    for call in (
        lambda: scheduler.run_now(job_id),
        lambda: scheduler.cancel_run("1"),
        scheduler.wait_idle,
        scheduler.store.list_jobs,
        lambda: scheduler.store.get_job(job_id),
        lambda: scheduler.store.add_job("other", "it", Cron("@daily")),
    ):
        with pytest.raises(SchedulerClosed):
            await call()


async def test_a_store_that_was_handed_in_stays_open(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async with open_store(tmp_path / "a.db") as store:
        for name in ("a", "b"):
            async with open_scheduler(store, nothing) as scheduler:
                await begin_and_end(scheduler, name)
        assert [run.status for run in await store.list_runs()] == [RunStatus.SUCCESS] * 2
    with pytest.raises(SchedulerClosed):
        async with open_scheduler(store, nothing):
            pytest.fail("the block must not begin")


async def begin_and_end(scheduler: CronScheduler, name: str) -> None:
    await scheduler.run_now(await scheduler.store.add_job(name, "it", Cron("@daily")))


# What stays behind


async def test_no_thread_no_connection_and_no_running_row_stays(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    threads = set(threading.enumerate())

    async def executor(context: JobContext) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(0.1):
        async with open_scheduler(file, executor, shutdown_grace=0) as scheduler:
            await scheduler.run_now(await scheduler.store.add_job("job", "it", Cron("@daily")))
    assert set(threading.enumerate()) == threads
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db"]  # the last connection takes the -wal file with it
    if Path("/proc/self/fd").exists():
        assert str(file) not in {os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()}
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM runs WHERE status = 'running'").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM runs WHERE status = 'pending'").fetchone() == (1,)


def after_ctrl_c(seconds: tuple[float, ...]) -> tuple[BaseException, float, list[str]]:
    """Run a scheduler with an endless run in real time, press Ctrl-C at the times given, and answer what leaves and when."""
    seen: list[str] = []

    async def executor(context: JobContext) -> None:
        started.set()
        try:
            await trio.sleep(30)
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    async def press() -> None:
        await started.wait()  # a busy machine may take longer for the start than the first pause
        for pause in seconds:
            await trio.sleep(pause)
            signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        trio.lowlevel.spawn_system_task(press)
        async with open_scheduler(":memory:", executor, shutdown_grace=20) as scheduler:
            await scheduler.run_now(await scheduler.store.add_job("job", "it", Cron("@daily")))

    began, started = time.monotonic(), trio.Event()
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests were started in the background
    try:
        trio.run(main)
    except BaseException as error:
        return error, time.monotonic() - began, seen
    finally:
        signal.signal(signal.SIGINT, usual)
    raise AssertionError("Ctrl-C had no effect")


def test_a_second_ctrl_c_ends_the_grace() -> None:
    error, took, seen = after_ctrl_c((0.1, 0.1))
    assert took < 10
    assert seen == ["cancelled"]
    assert type(error) is KeyboardInterrupt
