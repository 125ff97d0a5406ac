"""How long a stop may take, what shares that time, and how runs are recovered if a kill cuts it short."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest
import trio

from cronactors import (
    Cause,
    CronConfig,
    CronJob,
    CronRun,
    Interval,
    InvalidConfig,
    JobContext,
    RunStatus,
    StoreUnavailable,
    load_config,
    open_scheduler,
    open_store,
)
from cronactors.actors import stopping
from cronactors.actors.stopping import AFTER_GRACE, LEAST_LEFT, SIGN_OFF_SHARE, STOP_LIMIT, StopDeadline
from cronactors.ledger import finish as ledger_finish
from cronactors.shell.executor import SHELL_GRACE
from cronactors.storage import connection
from cronactors.storage.stop_marks import StopMarks
from cronactors.testing import VirtualClock
from tests.cli_command import Command, start
from tests.workers import Sleeper, nothing, raising, runs_in, start_jobs

__all__ = ["start"]


def marks(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if "-stopping-" in file.name)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the write lock, as another program would."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SQLite itself not wait for a lock: it would wait in real time."""
    monkeypatch.setattr(connection, "_BUSY_MS", 0)


# The deadline


def test_the_shares_fit_into_what_docker_grants() -> None:
    grace = CronConfig().shutdown_grace
    assert grace + SHELL_GRACE + LEAST_LEFT <= STOP_LIMIT < 10
    assert grace + AFTER_GRACE == STOP_LIMIT
    assert SHELL_GRACE + LEAST_LEFT <= AFTER_GRACE


@pytest.mark.parametrize(("grace", "total"), [(0, 8), (4.9, 8), (5, 8), (10, 13), (3600, 3603)])
async def test_a_stop_lasts_8_s_or_3_s_longer_than_its_grace(autojump_clock, grace: float, total: float) -> None:
    await trio.sleep(100)
    deadline = StopDeadline(grace)
    assert deadline.grace_ends == 100 + grace
    assert deadline.sign_off_ends == 100 + total
    assert deadline.at == 100 + total - SIGN_OFF_SHARE


async def test_half_a_second_is_left_after_the_last_executor(autojump_clock) -> None:
    deadline = StopDeadline(5)
    await trio.sleep(3)
    assert deadline.extend() == 8 - SIGN_OFF_SHARE
    await trio.sleep(17)
    assert deadline.extend() == 20 + LEAST_LEFT - SIGN_OFF_SHARE
    assert deadline.sign_off_ends == 20.5


async def test_the_default_grace_is_that_of_the_config(virtual_clock: VirtualClock) -> None:
    for config, given, expected in [
        (None, None, 5),
        (CronConfig(shutdown_grace=2), None, 2),
        (CronConfig(shutdown_grace=2), 1, 1),
        (CronConfig(shutdown_grace=2), 0, 0),
    ]:
        began = trio.current_time()
        async with open_scheduler(":memory:", Sleeper(), config=config, shutdown_grace=given) as scheduler:
            await start_jobs(scheduler)
        assert trio.current_time() - began == pytest.approx(1 + expected)


async def test_the_grace_of_a_handed_in_store_is_that_of_its_config(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:", config=CronConfig(shutdown_grace=3)) as store:
        async with open_scheduler(store, Sleeper()) as scheduler:
            await start_jobs(scheduler)
        assert trio.current_time() == pytest.approx(4)


def test_the_grace_is_a_key_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("[cron]\nshutdown_grace = 1.5\n")
    assert load_config(file).shutdown_grace == 1.5
    file.write_text("[cron]\nshutdown_grace = -1\n")
    with pytest.raises(InvalidConfig, match="shutdown_grace"):
        load_config(file)


@pytest.mark.parametrize(("grace", "took"), [(None, 8), (0, 8), (10, 13)])
async def test_a_stop_ends_in_time_although_the_store_fails(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, grace: float | None, took: float
) -> None:
    async with open_scheduler(tmp_path / "a.db", Sleeper(), shutdown_grace=grace) as scheduler:
        await start_jobs(scheduler)
        monkeypatch.setattr(ledger_finish, "finish_runs", raising(StoreUnavailable("disk full")))
    assert trio.current_time() - 1 == pytest.approx(took - SIGN_OFF_SHARE, abs=0.1)


async def test_a_stop_ends_in_time_although_the_file_is_locked(
    virtual_clock: VirtualClock, no_wait: None, tmp_path: Path
) -> None:
    file = tmp_path / "a.db"
    async with open_store(file):
        pass
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        async with open_scheduler(file, Sleeper()) as scheduler:
            await start_jobs(scheduler)
            other.execute("BEGIN IMMEDIATE")
        assert trio.current_time() - 1 == pytest.approx(8, abs=0.2)
        assert marks(tmp_path) == ["a.db-stopping-1"]  # it could neither record nor sign off


async def test_notifications_share_the_time_that_recording_has_left(virtual_clock: VirtualClock) -> None:
    """Two runs are cancelled after 5 s and take 2 s to end; the notifier hangs in the first call."""
    notified: list[float] = []

    async def executor(context: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            if context.job_name == "fails":
                raise ValueError

    async def on_finish(job: CronJob, run: CronRun) -> None:
        notified.append(trio.current_time())
        await trio.sleep_forever()

    async def quick(context: JobContext) -> None:
        if context.job_name == "quick":
            return
        await executor(context)

    async with open_scheduler(":memory:", quick, on_finish=on_finish, config=CronConfig(max_concurrent_runs=2)) as scheduler:
        await start_jobs(scheduler, "slow", "quick")
    assert len(notified) == 1
    assert trio.current_time() - 1 == pytest.approx(8 - SIGN_OFF_SHARE, abs=0.1)


async def test_after_an_executor_that_shields_itself_half_a_second_is_left(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def executor(context: JobContext) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async with open_scheduler(tmp_path / "a.db", executor) as scheduler:
        await start_jobs(scheduler)
        monkeypatch.setattr(ledger_finish, "finish_runs", raising(StoreUnavailable("disk full")))
    assert trio.current_time() == pytest.approx(60 + LEAST_LEFT - SIGN_OFF_SHARE, abs=0.1)


# The mark


@pytest.mark.parametrize("how", ["left", "raised", "cancelled"])
async def test_the_mark_is_created_when_the_block_is_left_and_removed_when_it_has_ended(
    virtual_clock: VirtualClock, tmp_path: Path, how: str
) -> None:
    seen: list[tuple[float, list[str]]] = []

    async def executor(context: JobContext) -> None:
        try:
            await trio.sleep(3)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            seen.append((trio.current_time(), marks(tmp_path)))

    with trio.CancelScope() as outer:
        try:
            async with open_scheduler(tmp_path / "a.db", executor) as scheduler:
                await start_jobs(scheduler)
                assert marks(tmp_path) == []
                if how == "cancelled":
                    outer.cancel()
                    await trio.lowlevel.checkpoint()
                if how == "raised":
                    raise LookupError("of the block")
        except LookupError:
            assert how == "raised"
    assert seen == [(pytest.approx(1.5 if how == "cancelled" else 3.5), ["a.db-stopping-1"])]
    assert marks(tmp_path) == []


async def test_without_a_run_in_flight_nothing_is_marked(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked: list[int] = []
    monkeypatch.setattr(StopMarks, "note", lambda self, owner: marked.append(owner))
    async with open_scheduler(tmp_path / "a.db", nothing) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(1000))
        await trio.sleep(3.5)
    assert marked == []


@pytest.mark.parametrize("within", ["open_store", "open_scheduler"])
async def test_a_loop_of_the_users_own_is_marked_when_its_store_is_left(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    marked: list[int] = []
    note = StopMarks.note
    monkeypatch.setattr(StopMarks, "note", lambda self, owner: (marked.append(owner), note(self, owner)))
    if within == "open_store":
        async with open_store(tmp_path / "a.db") as store:
            job_id = await store.add_job("job", "it", Interval(3_600_000))
            await store.record_run_start(job_id)
        assert marked == [1]
    else:
        async with open_scheduler(tmp_path / "a.db", nothing) as scheduler:
            job_id = await scheduler.store.add_job("job", "it", Interval(3_600_000))
            await scheduler.store.record_run_start(job_id)
        assert marked == [2]  # the scheduler itself runs nothing
    assert marks(tmp_path) == []


async def test_a_mark_that_cannot_be_created_is_logged_and_the_stop_continues(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(StopMarks, "note", raising(OSError(28, "No space left on device")))
    async with open_scheduler(tmp_path / "a.db", Sleeper(2)) as scheduler:
        await start_jobs(scheduler)
    assert [run.status for run in await runs_in(tmp_path / "a.db")] == [RunStatus.SUCCESS]
    assert "No space left on device" in caplog.text


async def test_a_disk_that_stalls_does_not_block_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proceed = threading.Event()
    monkeypatch.setattr(stopping, "MARK_LIMIT", 0.05)
    monkeypatch.setattr(StopMarks, "note", lambda self, owner: proceed.wait(20))
    before = set(threading.enumerate())
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await trio.sleep(0.005)
            beats += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        with trio.fail_after(20):
            async with open_scheduler(tmp_path / "a.db", Sleeper(0.2)) as scheduler:
                await scheduler.store.add_job("job", "it", Interval(50))
                while not scheduler.health().runs_in_flight:
                    await trio.sleep(0.005)
                beats = 0
        assert beats >= 2
        nursery.cancel_scope.cancel()
    proceed.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)


# Real processes

AGENT = """
[cron]
database = "jobs.db"
executor = "shell"
[[cron.jobs]]
name = "job"
prompt = "trap '' TERM; while [ ! -e finish ]; do sleep 0.05; done"
in_secs = 0
max_retries = 0
"""
needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of POSIX")


async def next_start(file: Path) -> tuple[list[CronRun], CronJob, int]:
    """Start a scheduler again: the runs that it recovers, the job, and how many crashes are counted for it."""
    async with open_scheduler(file, nothing) as scheduler:
        (job,) = await scheduler.store.list_jobs()
        recovered = list(scheduler.recovered)
        await scheduler.wait_idle()
    with closing(sqlite3.connect(file)) as other:
        (crashes,) = other.execute("SELECT crashes FROM jobs").fetchone()
    return recovered, job, crashes


@needs_kill
@pytest.mark.slow
@pytest.mark.parametrize("lock", [False, True], ids=["free", "locked"])
def test_docker_stop_is_no_crash(start: Callable[..., Command], tmp_path: Path, lock: bool) -> None:
    """The command ignores SIGTERM. The scheduler has ended within 10 s, before the SIGKILL, even if the file is locked."""
    (tmp_path / "agent.toml").write_text(AGENT)
    command = start("run")
    command.wait_for("started")
    with locked(tmp_path / "jobs.db") if lock else nullcontext():
        command.process.send_signal(signal.SIGTERM)
        try:
            assert command.process.wait(10) == 0
        except subprocess.TimeoutExpired:
            pytest.fail("it would have been killed")
    recovered, job, crashes = trio.run(next_start, tmp_path / "jobs.db")
    assert (job.enabled, crashes) == (True, 0)
    assert [run.error for run in recovered] == (["interrupted: its process was killed while it was stopping"] if lock else [])
    runs = trio.run(runs_in, tmp_path / "jobs.db")
    assert [(run.status, run.cause) for run in runs] == [(RunStatus.FAILED, Cause.INTERRUPTED), (RunStatus.SUCCESS, None)]


@needs_kill
@pytest.mark.slow
def test_a_kill_right_after_the_signal_is_no_crash_while_another_process_holds_the_file(
    start: Callable[..., Command], tmp_path: Path
) -> None:
    (tmp_path / "agent.toml").write_text(AGENT)
    for _ in range(3):
        command = start("run")
        command.wait_for("started")
        with locked(tmp_path / "jobs.db"):
            command.process.send_signal(signal.SIGTERM)
            until = time.monotonic() + 4  # before the grace is over
            while not marks(tmp_path) and time.monotonic() < until:
                time.sleep(0.005)
            command.process.kill()
            command.process.wait()
        assert len(marks(tmp_path)) == 1
    (tmp_path / "finish").touch()  # for the shells, which outlive their scheduler
    recovered, job, crashes = trio.run(next_start, tmp_path / "jobs.db")
    assert [run.error for run in recovered] == ["interrupted: its process was killed while it was stopping"]
    assert (job.enabled, crashes) == (True, 0)
    assert marks(tmp_path) == []


@needs_kill
@pytest.mark.slow
def test_the_grace_of_the_command_line_beats_the_file(start: Callable[..., Command], tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(AGENT.replace("[cron]", "[cron]\nshutdown_grace = 60"))
    command = start("run", "--shutdown-grace", "0.5")
    command.wait_for("started")
    command.process.send_signal(signal.SIGTERM)
    command.wait_for("waiting at most 0.5 s for 1 run;")
    assert command.end()[0] == 0
    code, text = start("run", "--shutdown-grace", "-1").end()
    assert code == 2
    assert "SECONDS" in text
