"""The printer of `run` and `watch`, with readers that are slow, blocked or gone."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from cronactors.cli import printer as module
from cronactors.cli.json_report import left_out_line
from cronactors.cli.printer import Printer


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


async def test_the_line_about_lines_that_were_left_out_is_json_among_lines_of_json():
    printer = Printer(never, left_out_line)
    for number in range(10_002):
        printer.print_line(str(number))
    event = json.loads(printer._take().decode().splitlines()[-1])
    assert (event["event"], event["message"]) == ("lines_left_out", "… 2 lines left out …")


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
    assert printer.failure is None


async def test_the_printer_notices_that_the_reader_is_gone_though_nothing_is_printed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_INTERVAL", 0.05)
    lost = trio.Event()
    with standard_output_in_a_pipe() as reader, trio.fail_after(10):
        printer = Printer(lost.set)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(printer.run)
            reader.close()
            await lost.wait()
            await printer.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")  # noqa: PTH110
async def test_the_printer_keeps_the_reason_why_it_cannot_write(monkeypatch: pytest.MonkeyPatch):
    lost = trio.Event()
    with open("/dev/full", "w", encoding="utf-8") as full, trio.fail_after(10):  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        printer = Printer(lost.set)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(printer.run)
            printer.print_line("x")
            await lost.wait()
    assert printer.failure is not None
    assert printer.failure.errno == errno.ENOSPC
