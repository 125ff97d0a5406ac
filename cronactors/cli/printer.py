"""The printer of ``run``: lines are queued, and a thread writes them to standard output.

A terminal that is paused (Ctrl-S) and a full pipe block whoever writes to them. That must not be the event loop, which starts jobs and
enforces their timeouts.
"""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import trio

from cronactors.cli.stdout import encoding

_MAX_QUEUED = 10_000
"""How many lines are queued; more are counted and left out."""
_CLOSE_LIMIT = 2.0
"""How long (s) `Printer.close` waits for a slow reader."""


class Printer:
    """Write lines to standard output in a thread.

    Args:
        on_reader_gone: Called once, when the reader has closed the pipe or the terminal.
    """

    def __init__(self, on_reader_gone: Callable[[], None]) -> None:
        self._on_reader_gone = on_reader_gone
        self._lines: deque[str] = deque()
        self._left_out = 0
        # One encoder for all lines: some encodings begin with a byte order mark.
        self._encoder = codecs.getincrementalencoder(encoding())("backslashreplace")
        self._closed = False
        self._finished = trio.Event()
        # A channel of size 1 is a latch: a line that is queued during a write is not forgotten.
        self._wake_sender, self._wake_receiver = trio.open_memory_channel[None](1)

    def print_line(self, line: str = "") -> None:
        """Queue a line. If the reader is 10,000 lines behind, leave the line out and count it."""
        if len(self._lines) < _MAX_QUEUED:
            self._lines.append(line)
        else:
            self._left_out += 1
        self._wake()

    async def run(self) -> None:
        """Write lines until `close` is called or the reader is gone. Cancellation abandons a write that is blocked."""
        threads = trio.CapacityLimiter(1)  # not trio's default limiter, whose threads an executor may all occupy
        try:
            while self._lines or not self._closed:
                if not self._lines:
                    await self._wake_receiver.receive()
                    continue
                await trio.to_thread.run_sync(_write, self._take(), abandon_on_cancel=True, limiter=threads)
        except OSError:
            self._on_reader_gone()
        finally:
            self._finished.set()

    async def close(self) -> None:
        """Wait until everything is written, at most 2 s."""
        self._closed = True
        self._wake()
        with trio.move_on_after(_CLOSE_LIMIT):
            await self._finished.wait()

    def _wake(self) -> None:
        with suppress(trio.WouldBlock):  # it is set already
            self._wake_sender.send_nowait(None)

    def _take(self) -> bytes:
        lines = list(self._lines)
        self._lines.clear()
        if self._left_out:
            lines.append(f"… {self._left_out:,} lines left out …")
            self._left_out = 0
        return self._encoder.encode("".join(f"{line}\n" for line in lines))


def _write(data: bytes) -> None:
    """Write to the descriptor, not to `sys.stdout`: a thread that holds its buffer's lock would hang the exit of the interpreter."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]
        except BlockingIOError:  # another process that shares the descriptor has made it non-blocking
            time.sleep(0.05)
