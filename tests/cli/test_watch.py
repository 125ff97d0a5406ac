"""The verb `watch` as a whole: its lines in a pipe, its live view, and how each ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import attrs
import pytest
import trio

from cronactors import CronError, Interval, JobNotFound, RunStatus, StoreUnavailable, open_store
from cronactors.cli import printer, watch, watch_store
from cronactors.cli.run_query import RunQuery
from cronactors.cli.watch import Session, WatchOptions
from cronactors.cli.watch_screen import Screen
from cronactors.cli.watch_view import Line
from cronactors.storage.sqlite import SqliteStorage
from tests.cli.test_printer import standard_output_in_a_pipe
from tests.cli_history import call
from tests.cli_stores import with_ctrl_c

__all__ = ["with_ctrl_c"]

QUERY = RunQuery(limit=200)


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A store with a job and a run that has succeeded."""
    return await make(tmp_path)


async def make(folder: Path) -> Path:
    async with open_store(folder / "jobs.db") as store:
        job_id = await store.add_job("report", "it", Interval.every(hours=1), tags=["t"])
        await store.record_run_complete(await store.record_run_start(job_id), RunStatus.SUCCESS, "fine")
    return folder / "jobs.db"


async def start_run(file: Path, *, finish: bool = False) -> None:
    async with open_store(file, create=False) as store:
        job = await store.get_job_by_name("report")
        assert job is not None
        run_id = await store.record_run_start(job.id)
        if finish:
            await store.record_run_complete(run_id, RunStatus.FAILED, "no luck")


class Lines:
    """The lines of a session that writes to a pipe in this process."""

    def __init__(self, pipe: int) -> None:
        self._pipe, self.text = pipe, ""

    async def wait_for(self, pattern: str) -> str:
        while (found := re.search(pattern, self.text, re.MULTILINE)) is None:
            await trio.lowlevel.wait_readable(self._pipe)
            self.text += os.read(self._pipe, 65_536).decode()
        return found[0]


# Lines


class Running:
    """A session in this process, with its exit status or error."""

    def __init__(self, file: Path | str, query: RunQuery, screen: FakeScreen | None, options: dict[str, float]) -> None:
        self.session = Session(str(file), query, screen, attrs.evolve(WatchOptions(interval=0.05), **options))
        self.status: int | Exception | None = None

    async def run(self) -> None:
        try:
            self.status = await self.session.run()
        except (CronError, OSError) as error:
            self.status = error


class Plain(Running):
    """A session that writes to a pipe."""

    def __init__(self, file: Path | str, reader: io.FileIO, query: RunQuery = QUERY, **options: float) -> None:
        super().__init__(file, query, None, options)
        self.lines = Lines(reader.fileno())


async def test_events_are_lines_in_a_pipe_until_ctrl_c(file: Path, with_ctrl_c: None):
    with standard_output_in_a_pipe() as reader, trio.fail_after(20):
        plain = Plain(file, reader)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plain.run)
            await plain.lines.wait_for("no scheduler is alive$")
            await start_run(file, finish=True)
            await plain.lines.wait_for(r"run 2  report  attempt 1  failed/error  .* no luck$")
            signal.raise_signal(signal.SIGINT)
    assert plain.status == 0
    assert "run 1 " not in plain.lines.text


async def test_a_line_is_a_json_object(file: Path):
    with standard_output_in_a_pipe() as reader, trio.fail_after(20):
        plain = Plain(file, reader, as_json=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plain.run)
            await plain.lines.wait_for("schedulers.*\n")
            await start_run(file)
            line = await plain.lines.wait_for("^.*started.*$")
            plain.session.stop(143)
    event = json.loads(line)
    assert (event["event"], event["run"]["job_name"], event["run"]["status"]) == ("started", "report", "running")
    assert plain.status == 143


async def test_it_stops_after_a_number_of_seconds_and_has_printed_everything(file: Path):
    with standard_output_in_a_pipe() as reader, trio.fail_after(20):
        plain = Plain(file, reader, seconds=0.3)
        await plain.run()
        printed = os.read(reader.fileno(), 65_536).decode()
    assert plain.status == 0
    assert printed.endswith("UTC  no scheduler is alive\n")


async def test_a_reader_that_is_slow_gets_a_json_object_about_the_lines_that_it_missed(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(printer, "_MAX_QUEUED", 1)
    await start_run(file)
    with standard_output_in_a_pipe() as reader, trio.fail_after(20):
        plain = Plain(file, reader, as_json=True, seconds=0.3)
        await plain.run()
        printed = os.read(reader.fileno(), 65_536).decode().splitlines()
    assert [json.loads(line)["event"] for line in printed] == ["schedulers", "lines_left_out"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
async def test_a_full_disk_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch):
    with open("/dev/full", "w", encoding="utf-8") as full, trio.fail_after(20):  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left"):
            await Session(str(file), QUERY, None, WatchOptions()).run()


async def test_it_ends_soon_after_the_reader_has_gone_though_nothing_happens(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(printer, "_INTERVAL", 0.05)
    with standard_output_in_a_pipe() as reader, trio.fail_after(20):
        plain = Plain(file, reader, interval=60)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plain.run)
            await plain.lines.wait_for("no scheduler is alive$")
            reader.close()
    assert plain.status == 1


async def test_a_store_that_is_away_for_a_while_is_reported_and_a_deleted_file_ends_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(_self: SqliteStorage, *, write: bool, alone: bool = True) -> bool:
        raise StoreUnavailable("the server is gone")

    with standard_output_in_a_pipe() as reader, trio.fail_after(20):
        plain = Plain(file, reader)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plain.run)
            await plain.lines.wait_for("no scheduler is alive$")
            with monkeypatch.context() as patch:
                patch.setattr(SqliteStorage, "begin", fail)
                await plain.lines.wait_for("no answer: the server is gone$")
            await plain.lines.wait_for("the store answers again$")
            file.unlink()
    assert isinstance(plain.status, StoreUnavailable)
    assert "was deleted or replaced" in str(plain.status)


# The live view


def text_of(line: Line) -> str:
    return "".join(cell.text for cell in line)


class FakeScreen(Screen):
    """A terminal that is written down."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.columns, self.rows = columns, rows
        self.is_gone = False
        self.log: list[str] = []
        self.frame: list[str] = []
        self._drawn = trio.Event()
        self.keys, self._keys = trio.open_memory_channel[bytes](10)

    def __enter__(self) -> Self:
        self.log.append("entered")
        return self

    def leave(self) -> None:
        self.log.append("left")

    def suspend(self) -> None:
        self.log.append("suspended")

    def size(self) -> tuple[int, int]:
        return self.columns, self.rows

    async def draw(self, lines: Sequence[Line]) -> None:
        if self.is_gone:
            raise OSError("input/output error")
        self.frame = [text_of(line) for line in lines]
        self._drawn.set()
        self._drawn = trio.Event()
        await trio.lowlevel.checkpoint()

    async def read_keys(self) -> bytes:
        return await self._keys.receive()

    async def wait_for(self, pattern: str) -> str:
        while (found := next((line for line in self.frame if re.search(pattern, line)), None)) is None:
            await self._drawn.wait()
        return found


class Live(Running):
    """A live view in a task of a nursery."""

    def __init__(self, file: Path, query: RunQuery = QUERY, **options: float) -> None:
        self.screen = FakeScreen()
        super().__init__(file, query, self.screen, options)


async def test_the_live_view_shows_what_happens_until_q(file: Path):
    with trio.fail_after(20):
        live = Live(file)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.run)
            await live.screen.wait_for("^  .*success .* report  fine$")
            await start_run(file)
            await live.screen.wait_for(r"^Running \(1\)$")
            await live.screen.wait_for("^  report +[01] s")
            await live.screen.wait_for("still running")
            await live.screen.keys.send(b"x\x1b[A")  # other keys do nothing
            await live.screen.keys.send(b"q")
    assert (live.status, live.screen.log) == (0, ["entered", "left"])


@pytest.mark.parametrize(
    ("keys", "number", "status"),
    [
        (b"", None, 0),
        (None, "SIGINT", 0),
        (None, "SIGTERM", 143),
        (None, "SIGHUP", 129),
        (None, "SIGQUIT", 131),
    ],
)
async def test_the_screen_is_left_however_it_ends(
    file: Path, with_ctrl_c: None, keys: bytes | None, number: str | None, status: int
):
    """`test_watch_terminal` tests what that does to a terminal."""
    with trio.fail_after(20):
        live = Live(file)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.run)
            await live.screen.wait_for("^Last$")
            if number is None:
                await live.screen.keys.send(keys or b"")
            else:
                signal.raise_signal(signal.Signals[number])
    assert (live.status, live.screen.log) == (status, ["entered", "left"])


async def test_it_is_drawn_again_when_the_terminal_has_another_size_or_is_continued(file: Path, monkeypatch: pytest.MonkeyPatch):
    with trio.fail_after(20):
        live = Live(file, interval=60)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.run)
            await live.screen.wait_for("^Last$")
            monkeypatch.setattr(watch, "INTERVAL", 60)
            live.screen.columns, live.screen.rows = 30, 5
            signal.raise_signal(signal.SIGWINCH)
            await live.screen.wait_for(r"^jobs\.db {15}\d\d:\d\d:\d\d$")
            assert len(live.screen.frame) == 5
            live.screen.columns = 50
            signal.raise_signal(signal.SIGTSTP)
            await live.screen.wait_for(r"^jobs\.db {35}\d\d:\d\d:\d\d$")
            live.session.stop()
    assert live.screen.log == ["entered", "suspended", "left"]


async def test_the_times_go_on_while_the_store_does_not_answer(file: Path, monkeypatch: pytest.MonkeyPatch):
    locked = False
    begin = SqliteStorage.begin

    def maybe(self: SqliteStorage, *, write: bool, alone: bool = True) -> bool:
        return not locked and begin(self, write=write, alone=alone)

    monkeypatch.setattr(SqliteStorage, "begin", maybe)
    monkeypatch.setattr(watch, "INTERVAL", 0.05)
    monkeypatch.setattr(watch_store, "PATIENCE", 0.2)
    with trio.fail_after(20):
        live = Live(file)
        live.screen.columns = 300
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.run)
            await live.screen.wait_for("^Last$")
            locked = True
            await live.screen.wait_for("jobs.db is locked, or has not answered for 0 s$")
            before = live.screen.frame[0]
            while live.screen.frame[0] == before:
                await live.screen._drawn.wait()
            locked = False
            while any("not answered" in line for line in live.screen.frame):
                await live.screen._drawn.wait()
            live.session.stop()
    assert live.status == 0


async def test_an_error_of_the_store_leaves_the_terminal_and_is_raised(file: Path):
    with trio.fail_after(20):
        live = Live(file)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.run)
            await live.screen.wait_for("^Last$")
            file.unlink()
    assert isinstance(live.status, StoreUnavailable)
    assert live.screen.log == ["entered", "left"]


async def test_a_terminal_that_is_gone_ends_it(file: Path):
    with trio.fail_after(20):
        live = Live(file)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.run)
            await live.screen.wait_for("^Last$")
            live.screen.is_gone = True
    assert (live.status, live.screen.log) == (1, ["entered", "left"])


async def test_a_job_that_nobody_has_is_an_error_before_the_terminal_is_covered(file: Path):
    live = Live(file, RunQuery(name="reprt"))
    with trio.fail_after(20):
        await live.run()
    assert isinstance(live.status, JobNotFound)
    assert str(live.status) == "no job has the name 'reprt'; did you mean report?"
    assert live.screen.log == []


# The command


def test_the_options_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[tuple[object, ...]] = []

    def fake(database: str, query: RunQuery, options: WatchOptions) -> int:
        calls.append((database, query.name, query.user, query.tag, options))
        return 143 if options.as_json else 0

    monkeypatch.setattr(watch, "watch_store", fake)
    assert call("a.db", "watch") == (0, "")
    status, _ = call("a.db", "watch", "job", "--user", "ann", "--tag", "t", "--json", "--interval", "0.5", "--for", "3")
    assert status == 143
    assert call("a.db", "runs", "--follow", "--tag", "t") == (0, "")
    assert calls == [
        ("a.db", None, None, None, WatchOptions()),
        ("a.db", "job", "ann", "t", WatchOptions(as_json=True, interval=0.5, seconds=3)),
        ("a.db", None, None, "t", WatchOptions(follow=True)),
    ]


@pytest.mark.parametrize("args", [["--interval", "0"], ["--interval", "nan"], ["--for", "-1"], ["--for", "x"]])
def test_a_wrong_number_is_wrong_usage(args: list[str]):
    status, text = call("a.db", "watch", *args)
    assert status == 2
    assert f"Invalid value for '{args[0]}'" in text
