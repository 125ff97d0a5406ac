"""Whether a database was written to, as its files alone show it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from cronactors import CronConfig, Interval, JobContext, RunStatus, StoreUnavailable, open_scheduler, open_store
from cronactors.actors import patrol
from cronactors.actors.actor_requests import Inspect, Snapshot
from cronactors.storage import file_state
from cronactors.storage.file_state import LogWatch
from cronactors.storage.protocol import Storage
from cronactors.storage.sqlite import SqliteStorage
from tests.storages import add, opened

HOUR = 3600


def written(path: str, *, ago: float) -> None:
    """Set the time of the last write to the log to so many seconds ago."""
    os.utime(f"{path}-wal", (time.time() - ago, time.time() - ago))


@pytest.mark.parametrize("ago", [HOUR, file_state.LOG_AGE + 1])
def test_a_log_without_a_further_write_is_unchanged(tmp_path: Path, ago: float) -> None:
    path = str(tmp_path / "a.db")
    with closing(opened(path)) as storage:
        add(storage, "a")
        written(path, ago=ago)
        watch = storage.watch()
        assert [watch.unchanged() for _ in range(3)] == [False, True, True]


def test_each_commit_is_noticed(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    with closing(opened(path)) as storage, closing(opened(path)) as other:
        add(storage, "a")
        written(path, ago=HOUR)
        watch = storage.watch()
        watch.unchanged()
        assert watch.unchanged()
        for n in range(3):
            add(other, f"b{n}")
            assert not watch.unchanged()
            written(path, ago=HOUR - n)
            assert [watch.unchanged() for _ in range(2)] == [False, True]


@pytest.mark.parametrize("ago", [0, file_state.LOG_AGE - 1, -file_state.LOG_AGE + 1])
def test_a_log_that_was_written_just_now_never_counts_as_unchanged(tmp_path: Path, ago: float) -> None:
    path = str(tmp_path / "a.db")
    with closing(opened(path)) as storage:
        add(storage, "a")
        watch = storage.watch()
        for _ in range(3):
            written(path, ago=ago)
            assert not watch.unchanged()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file.unlink(), id="removed"),
        pytest.param(
            lambda file: (shutil.copy2(file, f"{file}.new"), file.unlink(), Path(f"{file}.new").rename(file)), id="replaced"
        ),
    ],
)
def test_a_file_that_is_removed_or_replaced_is_noticed(tmp_path: Path, suffix: str, change: Callable[[Path], object]) -> None:
    path = str(tmp_path / "a.db")
    with closing(opened(path)) as storage:
        add(storage, "a")
        written(path, ago=HOUR)
        watch = storage.watch()
        watch.unchanged()
        assert watch.unchanged()
        change(Path(path + suffix))
        assert not watch.unchanged()


def test_a_database_in_memory_never_counts_as_unchanged() -> None:
    with closing(SqliteStorage(":memory:", wall=lambda: 0)) as storage:
        watch = storage.watch()
        assert not any(watch.unchanged() for _ in range(3))


# How a scheduler uses it. In real time, since the system sets the times of files; margins are ten times as long as needed.


@pytest.fixture
def short_log_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_state, "LOG_AGE", 0.05)


@pytest.fixture
def inspections(monkeypatch: pytest.MonkeyPatch) -> list[Inspect]:
    """All inspections of the file so far."""
    done: list[Inspect] = []
    inspect = Inspect.apply

    def apply(self: Inspect, storage: Storage) -> Snapshot:
        done.append(self)
        return inspect(self, storage)

    monkeypatch.setattr(Inspect, "apply", apply)
    return done


class Ran:
    """An executor with an event that is set when it is called."""

    def __init__(self) -> None:
        self.event = trio.Event()

    async def __call__(self, _: JobContext) -> None:
        self.event.set()


def add_due_job(path: str) -> None:
    """Add a due job through another connection, as another process does."""
    with closing(opened(path)) as other:
        add(other, "due")


async def until_idle(inspections: list[Inspect]) -> None:
    """Wait until the scheduler has stopped inspecting the file."""
    with trio.fail_after(20):
        before = -1
        while len(inspections) != before:
            before = len(inspections)
            await trio.sleep(0.3)


@pytest.mark.usefixtures("short_log_age")
async def test_an_idle_scheduler_inspects_the_file_only_after_a_write(tmp_path: Path, inspections: list[Inspect]) -> None:
    ran, path = Ran(), str(tmp_path / "a.db")
    async with open_scheduler(path, ran, tick_interval=0.01):
        await until_idle(inspections)
        add_due_job(path)
        with trio.fail_after(10):
            await ran.event.wait()


@pytest.mark.usefixtures("short_log_age")
async def test_an_inspection_that_failed_is_repeated(tmp_path: Path, inspections: list[Inspect], monkeypatch) -> None:
    ran, path = Ran(), str(tmp_path / "a.db")
    async with open_scheduler(path, ran, tick_interval=0.1):
        await until_idle(inspections)
        inspect = Inspect.apply

        def failing(self: Inspect, storage: Storage) -> Snapshot:
            monkeypatch.setattr(Inspect, "apply", inspect)
            raise StoreUnavailable("disk I/O error")

        monkeypatch.setattr(Inspect, "apply", failing)
        add_due_job(path)
        written(path, ago=HOUR)
        with trio.fail_after(patrol.INSPECT_EVERY / 2):
            await ran.event.wait()


@pytest.mark.usefixtures("inspections")
async def test_a_write_that_shows_late_on_a_slow_disk_is_found_too(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(patrol, "INSPECT_EVERY", 0.2)
    monkeypatch.setattr(LogWatch, "unchanged", lambda _: True)
    ran, path = Ran(), str(tmp_path / "a.db")
    async with open_scheduler(path, ran, tick_interval=0.01):
        await trio.sleep(0.5)
        add_due_job(path)
        with trio.fail_after(10):
            await ran.event.wait()


@pytest.mark.usefixtures("short_log_age")
async def test_a_run_that_another_process_finished_is_cancelled_here_and_reported_once_if_it_shields_itself(
    tmp_path: Path, caplog
) -> None:
    stop, path = trio.Event(), str(tmp_path / "a.db")

    async def executor(context: JobContext) -> None:
        with trio.CancelScope(shield=context.prompt == "shield"):
            await stop.wait()

    config = CronConfig(max_concurrent_runs=2, cancel_grace=0.1)
    async with open_scheduler(path, executor, tick_interval=0.02, config=config) as scheduler:
        try:
            for prompt in ("shield", "do not"):
                job_id = await scheduler.store.add_job(prompt, prompt, Interval.every(hours=5))
                run = await scheduler.run_now(job_id, wait=False)
                with trio.fail_after(10):
                    while (await scheduler.store.get_run(run.id)).status is not RunStatus.RUNNING:
                        await trio.sleep(0.01)
                async with open_store(path) as other:
                    await other.record_run_complete(run.id, RunStatus.SUCCESS, "done")
            with trio.fail_after(10):
                while scheduler.health().runs_in_flight > 1 or "is still running" not in caplog.text:
                    await trio.sleep(0.02)
            turns = scheduler._actors.clock.wakes
            await trio.sleep(0.5)
            assert scheduler._actors.clock.wakes - turns < 250, "ten times as many as ticks"
            assert caplog.text.count("is still running") == 1
        finally:
            stop.set()


@pytest.mark.usefixtures("short_log_age")
async def test_the_file_of_an_open_store_is_watched_wherever_the_working_directory_is(
    tmp_path: Path, inspections: list[Inspect], monkeypatch
) -> None:
    ran = Ran()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "two")
    async with open_store("a.db"):
        monkeypatch.chdir(tmp_path / "one")
        async with open_store("a.db") as store:
            monkeypatch.chdir(tmp_path / "two")
            async with open_scheduler(store, ran, tick_interval=0.01):
                await until_idle(inspections)
                add_due_job(str(tmp_path / "one/a.db"))
                with trio.fail_after(5):
                    await ran.event.wait()
