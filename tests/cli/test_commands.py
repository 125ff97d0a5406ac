"""The command without a scheduler: usage, errors, finding the database, and the printer."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest
import trio

import cronactors
from cronactors.cli.database import find_database
from cronactors.cli.printer import Printer
from tests.cli_command import ROOT, start

__all__ = ["start"]


def test_version_imports_nothing_heavy():
    code = "import sys; sys.argv[1:] = ['--version']; from cronactors.cli import main; main()"
    code += "; assert not {'click', 'rich', 'sqlite_utils', 'asyncio'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == f"cronactors {cronactors.__version__}\n"


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["run", "absent.toml"], 1, "cronactors: .*absent.toml: cannot be read: No such file or directory"),
        (["run", "--for", "x"], 2, "Error: Invalid value for '--for': 'x' is not a number"),
        (["run", "--for", "nan"], 2, "Error: Invalid value for '--for': SECONDS must be"),
        (["run", "--for", "-1"], 2, "Error: Invalid value for '--for': SECONDS must be"),
        (["nonsense"], 2, "Error: No such command 'nonsense'"),
        (["runs"], 2, "Error: Missing argument 'NAME'"),
        (["runs", "x", "--limit", "0"], 2, "Error: Invalid value for '--limit'"),
        (["list"], 2, "Error: no database: give --db or --config, set CRONACTORS_DB"),
        (["list", "--db", "absent.db"], 1, "cronactors: .*absent.db"),
        (["list", "--config", "absent.toml"], 1, "cronactors: .*absent.toml: cannot be read"),
    ],
)
def test_wrong_usage_is_one_line_without_traceback(start, tmp_path, args, status, message):
    code, text = start(*args).end()
    assert code == status
    assert re.match(message, text.splitlines()[-1])
    assert "Traceback" not in text
    assert status == 2 or len(text.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        (None, 'executor is not named: write executor = "shell"'),
        ("nowhere:function", "executor 'nowhere:function': cannot import nowhere"),
        ("os:getcwd", "executor 'os:getcwd' must be an async function"),
    ],
)
def test_a_wrong_executor(start, tmp_path, executor, message):
    (tmp_path / "agent.toml").write_text("[cron]")
    code, text = start("run", *(["--executor", executor] if executor else [])).end()
    assert (code, text.startswith(f"cronactors: {message}")) == (1, True)
    assert not (tmp_path / "agent.db").exists()


def test_the_database_is_found_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRONACTORS_DB", raising=False)
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.toml").write_text('[cron]\ndatabase = "x.db"')
    (other / "none.toml").write_text("")
    with pytest.raises(click.UsageError, match="no database"):
        find_database(None, None)
    (tmp_path / "agent.toml").write_text('[cron]\ndatabase = "here.db"')
    assert find_database(None, None) == str(tmp_path / "here.db")
    monkeypatch.setenv("CRONACTORS_DB", "env.db")
    assert find_database(None, None) == "env.db"
    assert find_database(None, "other/none.toml") == "env.db"
    assert find_database(None, "other/x.toml") == str(other / "x.db")
    assert find_database("given.db", "other/x.toml") == "given.db"
    monkeypatch.delenv("CRONACTORS_DB")
    assert find_database(None, "other/none.toml") == str(other / "agent.db")


@contextmanager
def standard_output_in_a_pipe() -> Iterator[io.FileIO]:
    """Put a pipe in the place of standard output; not a fixture, as pytest sets its own between set-up and call."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with os.fdopen(reader, "rb", buffering=0) as reading:  # closed first, which wakes a writer that waits
            yield reading


def never() -> None:
    pytest.fail("the reader is gone?")


async def test_a_slow_reader_does_not_block_the_printer_and_misses_lines():
    received = bytearray()

    async def read(reader: io.FileIO) -> None:
        while not received.endswith(b"left out \xe2\x80\xa6\n"):
            received.extend(await trio.to_thread.run_sync(reader.read, 1 << 20, abandon_on_cancel=True))

    with standard_output_in_a_pipe() as reader, trio.fail_after(10):
        printer = Printer(never)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(printer.run)
            printer.print_line("x" * 1_000_000)  # more than the pipe takes
            await trio.sleep(0.05)
            for number in range(20_000):
                printer.print_line(str(number))
            nursery.start_soon(read, reader)
            await printer.close()
    lines = received.decode().splitlines()
    assert lines[1:3] == ["0", "1"]
    assert lines[-2:] == ["9999", "… 10,000 lines left out …"]


async def test_the_printer_gives_up_on_a_blocked_reader_after_2_seconds(autojump_clock):
    with standard_output_in_a_pipe():
        printer = Printer(never)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(printer.run)
            printer.print_line("x" * 1_000_000)
            await printer.close()
            nursery.cancel_scope.cancel()
    assert trio.current_time() == 2


async def test_the_printer_reports_a_reader_that_is_gone():
    lost = trio.Event()
    with standard_output_in_a_pipe() as reader, trio.fail_after(10):
        reader.close()
        printer = Printer(lost.set)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(printer.run)
            printer.print_line("x")
            await lost.wait()
            printer.print_line("y")
            await printer.close()
