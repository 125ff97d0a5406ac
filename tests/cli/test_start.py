"""Signals while `run` starts: it stops at once, though another process holds the file, and no run has started."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from cronactors.cli import run
from cronactors.cli.reload import Reloader, Source
from cronactors.cli.run_report import RunReport, TypedCommand
from cronactors.origins import StartReport
from tests.cli_command import QUICK, Command, lines_of, start, write
from tests.storages import contents, filled

__all__ = ["start", "write"]

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the proc file system")


@contextmanager
def locked(file: Path, mode: str) -> Iterator[None]:
    """Hold the lock, with EXCLUSIVE against readers too. Closing a connection may move the log into the file."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute(f"PRAGMA locking_mode = {mode}")
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def wait_until_it_has_opened(command: Command, file: Path) -> None:
    """Wait until the command has opened the file; it receives signals before that."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for descriptor in Path(f"/proc/{command.process.pid}/fd").iterdir():
            try:
                if descriptor.readlink() == file:
                    return
            except OSError:  # closed meanwhile
                continue
        time.sleep(0.001)
    pytest.fail("it has not opened the file")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", ["NORMAL", "EXCLUSIVE"])
def test_a_signal_during_the_start_stops_at_once_and_leaves_the_file_unchanged(
    start, write, tmp_path: Path, mode: str, number: signal.Signals
) -> None:
    file = tmp_path / "jobs.db"
    filled(str(file))
    before = contents(tmp_path)["jobs.db"]
    write(QUICK)
    with locked(file, mode):
        command = start("run")
        wait_until_it_has_opened(command, file)
        time.sleep(0.5)  # until it waits for the lock, which cannot be seen from here
        sent = time.monotonic()
        command.process.send_signal(number)
        code, text = command.end()
        assert time.monotonic() - sent < 5
    assert (code, lines_of(text, "stopped during")) == (0, [f"{number.name}: stopped during the start, before any run started"])
    assert lines_of(text, "^ended: 0 runs")
    assert not lines_of(text, r"attempt 1  started|Traceback")
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT count(*) FROM jobs").fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    assert contents(tmp_path)["jobs.db"] == before
    assert not (tmp_path / "once.txt").exists()


@needs_proc
@pytest.mark.slow
def test_a_start_continues_when_the_file_is_free(start, write, tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    filled(str(file))
    write(QUICK)
    with locked(file, "NORMAL"):
        command = start("run")
        wait_until_it_has_opened(command, file)
        time.sleep(0.5)  # as above
    command.wait_for("every .*success")
    command.process.send_signal(signal.SIGTERM)
    code, text = command.end()
    assert code == 0
    assert lines_of(text, "^SIGTERM: stopping in order")


class Session:
    """The command in this process, with a scheduler whose store never responds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: str) -> None:
        self.lines: list[str] = []
        self.hangs = hangs
        self.waits = trio.Event()
        self.left: list[str] = []
        monkeypatch.setattr(run, "open_store", self._open_store)
        monkeypatch.setattr(run, "open_scheduler", self._open)
        source = Source(file=folder / "agent.toml", db="jobs.db")
        loaded = source.load()
        self.session = run._Session(
            loaded,
            None,  # type: ignore[arg-type]
            Reloader(source, loaded, None, watch=False),
            run.RunOptions(),
            TypedCommand("cronactors", "--db jobs.db", "cronactors run"),
        )
        monkeypatch.setattr(self.session._printer, "print_line", lambda line="": self.lines.append(line))

    @asynccontextmanager
    async def _open_store(self, *_: object, **__: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace()

    @asynccontextmanager
    async def _events(self, **_: object) -> AsyncIterator[trio.MemoryReceiveChannel[object]]:
        send, receive = trio.open_memory_channel[object](0)
        self.events = send
        yield receive

    @asynccontextmanager
    async def _open(self, *_: object, **__: object) -> AsyncIterator[SimpleNamespace]:
        if self.hangs == "start":
            await self._hang()
        try:
            yield SimpleNamespace(
                recovered=(),
                _start_report=StartReport(),
                store=SimpleNamespace(list_jobs=self._hang),
                events=self._events,
            )
        finally:
            self.left.append("in order")
            self.events.close()

    async def _hang(self) -> list[object]:
        assert isinstance(self.session._report, RunReport)
        self.session._report._print_run("early", 1, "started")
        self.waits.set()
        await trio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize("hangs", ["start", "header"])
@pytest.mark.parametrize("reason", ["signal", "reader gone"])
async def test_it_can_be_stopped_before_its_header_is_complete(
    autojump_clock, write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str, reason: str
) -> None:
    write(QUICK)
    world = Session(tmp_path, monkeypatch, hangs=hangs)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.session.run)
            await world.waits.wait()
            if reason == "signal":
                world.session.stop_in_order("SIGTERM")
            else:
                world.session.stop_without_reader()
    assert trio.current_time() == 0
    assert world.left == (["in order"] if hangs == "header" else [])
    message = "stopping in order" if hangs == "header" else "stopped during the start, before any run started"
    assert (f"SIGTERM: {message}" in world.lines) == (reason == "signal")
    assert bool(lines_of("\n".join(world.lines), "early .*started")) == (hangs == "header"), "a run that started is shown"
    assert world.lines[-1].startswith("ended: 0 runs")
    assert world.session._status == (0 if reason == "signal" else 1)


@pytest.mark.slow
def test_the_header_quotes_a_name_that_begins_with_a_dash(start, write, tmp_path: Path) -> None:
    write('[[cron.jobs]]\nname = "--version"\nprompt = "echo hello"\nin_secs = 0')
    running = start("run")
    running.wait_for("success")
    assert running.process.poll() is None
    (line,) = [line for line in running.lines if "cronactors runs" in line]
    words = line.split("runs ", 1)[1].split()
    code, text = start("runs", *words).end()
    assert (code, len(lines_of(text, "success .* hello"))) == (0, 1)
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
