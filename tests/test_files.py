"""Whether anybody has written to a database, told by its files alone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from cronactors import JobContext, open_scheduler
from cronactors.actors.duties import Look
from cronactors.storage import files
from cronactors.storage.files import LogWatch
from tests.storages import add, opened

HOUR = 3600


def written(path: str, *, ago: float) -> None:
    """Let the log have been written so many seconds ago."""
    os.utime(f"{path}-wal", (time.time() - ago, time.time() - ago))


@pytest.mark.parametrize("ago", [HOUR, files.SETTLED + 1])
def test_a_log_that_nobody_has_written_to_is_quiet(tmp_path: Path, ago: float) -> None:
    path = str(tmp_path / "a.db")
    with closing(opened(path)) as storage:
        add(storage, "a")
        written(path, ago=ago)
        watch = LogWatch(path)
        assert [watch.quiet() for _ in range(3)] == [False, True, True]


def test_each_commit_is_noticed(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    with closing(opened(path)) as storage, closing(opened(path)) as other:
        add(storage, "a")
        written(path, ago=HOUR)
        watch = LogWatch(path)
        watch.quiet()
        assert watch.quiet()
        for n in range(3):
            add(other, f"b{n}")
            assert not watch.quiet()
            written(path, ago=HOUR - n)
            assert [watch.quiet() for _ in range(2)] == [False, True]


@pytest.mark.parametrize("ago", [0, files.SETTLED - 1, -files.SETTLED + 1])
def test_what_was_written_just_now_may_be_written_again_unnoticed(tmp_path: Path, ago: float) -> None:
    path = str(tmp_path / "a.db")
    with closing(opened(path)) as storage:
        add(storage, "a")
        watch = LogWatch(path)
        for _ in range(3):
            written(path, ago=ago)
            assert not watch.quiet()


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
        watch = LogWatch(path)
        watch.quiet()
        assert watch.quiet()
        change(Path(path + suffix))
        assert not watch.quiet()


def test_of_a_database_in_memory_nothing_is_told() -> None:
    watch = LogWatch(":memory:")
    assert not any(watch.quiet() for _ in range(3))


async def test_an_idle_scheduler_looks_inside_only_when_somebody_has_written(tmp_path: Path, monkeypatch) -> None:
    # In real time: the system keeps the times of files. The margins are some ten times what is needed.
    looks: list[object] = []
    look = Look.apply
    monkeypatch.setattr(Look, "apply", lambda self, storage: looks.append(self) or look(self, storage))
    monkeypatch.setattr(files, "SETTLED", 0.05)
    ran = trio.Event()

    async def executor(_: JobContext) -> None:
        ran.set()

    path = str(tmp_path / "a.db")
    async with open_scheduler(path, executor, tick_interval=0.01):
        await trio.sleep(0.5)
        before = len(looks)
        await trio.sleep(0.5)
        assert len(looks) == before
        with closing(opened(path)) as other:
            add(other, "due")
        with trio.fail_after(10):
            await ran.wait()
        assert len(looks) > before
