"""The lines of a command are in the output of its run while it is running."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from hypothesis import given, strategies as st

from cronactors import Cause, JobSpec, OneShot, RunStatus, now, open_scheduler
from cronactors.run_output import encode_lines
from cronactors.shell.executor import shell_executor
from cronactors.shell.live_lines import LONGEST_LINE, LiveLines
from cronactors.testing import fake_run
from tests.shell.run_command import shell

needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


def logged(*chunks: bytes) -> list[str]:
    with fake_run() as run:
        live = LiveLines(run)
        for chunk in chunks:
            live.add(chunk)
        live.add(b"", last=True)
    return run.lines


def test_a_line_is_logged_once_it_is_complete() -> None:
    with fake_run() as run:
        live = LiveLines(run)
        live.add(b"one\ntw")
        assert run.lines == ["one"]
        live.add(b"o\n\nthr")
        assert run.lines == ["one", "two", ""]
        live.add(b"", last=True)
        assert run.lines == ["one", "two", "", "thr"]


@given(st.text(st.sampled_from("aß€😀\n\r")), st.data())
def test_lines_do_not_depend_on_how_the_bytes_arrive(text: str, data: st.DataObject) -> None:
    content = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))
    chunks = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert logged(*chunks) == (encode_lines(text).decode().split("\n")[:-1] if text else [])


def test_bytes_that_are_not_text_are_replaced() -> None:
    assert logged(b"a\xff\xc3", b"\x28b\0\n", b"\xe2\x82") == ["a\ufffd\ufffd(b\ufffd", "\ufffd"]


def test_what_has_no_line_break_does_not_fill_the_memory() -> None:
    with fake_run() as run:
        live = LiveLines(run)
        for _ in range(100):
            live.add(b"x" * 1000)
            assert len(live._begun) <= LONGEST_LINE
    assert set(map(len, run.lines)) == {9000}


def test_without_a_run_nothing_is_kept() -> None:
    live = LiveLines(None)
    live.add(b"x" * 1000)
    live.add(b"", last=True)
    assert live._begun == ""


@needs_posix
async def test_the_summary_is_as_without_a_run(tmp_path: Path) -> None:
    command = "echo one; echo two >&2; printf three"
    alone = await shell(command, tmp_path)
    with fake_run() as run:
        assert await shell(command, tmp_path) == alone == "one\nthree"
    assert sorted(run.lines) == ["one", "three", "two"]


@needs_posix
async def test_a_long_command_can_be_watched(tmp_path: Path) -> None:
    """In real time: the command waits for a file that we create once we have read its first line."""
    command = "echo working; echo careful >&2; while [ ! -e go ]; do sleep 0.05; done; echo done"
    spec = JobSpec("job", command, OneShot(now() + timedelta(milliseconds=50)))
    async with open_scheduler(tmp_path / "agent.db", shell_executor(tmp_path), jobs=[spec]) as scheduler:
        store = scheduler.store
        with trio.fail_after(30):
            while not (runs := await store.list_runs(status=RunStatus.RUNNING)):
                await trio.sleep(0.02)
            while len((output := await store.get_run_output(runs[0].id)).text.splitlines()) < 2:
                await trio.sleep(0.02)
            assert sorted(output.text.splitlines()) == ["careful", "working"]
            (tmp_path / "go").touch()
            while not (output := await store.get_run_output(runs[0].id)).finished:
                await trio.sleep(0.02)
        assert output.text.splitlines()[-1] == "done"
        assert (await store.get_run(runs[0].id)).result_summary == "working\ndone"


@needs_posix
async def test_a_command_that_times_out_leaves_its_lines(tmp_path: Path) -> None:
    spec = JobSpec(
        "job", "echo started; printf half; sleep 60", OneShot(now() + timedelta(milliseconds=50)), timeout_secs=0.5, max_retries=0
    )
    async with open_scheduler(tmp_path / "agent.db", shell_executor(tmp_path, grace=0.2), jobs=[spec]) as scheduler:
        with trio.fail_after(30):
            while not (runs := await scheduler.store.list_runs(status=RunStatus.FAILED)):
                await trio.sleep(0.05)
        assert runs[0].cause is Cause.TIMEOUT
        assert (await scheduler.store.get_run_output(runs[0].id)).text == "started\nhalf\n"
