"""The printer of ``run`` and ``watch``: lines are queued, and a thread writes them to standard output.

A terminal that is paused (Ctrl-S) and a full pipe block whoever writes to them. That must not be the event loop, which starts jobs and
enforces their timeouts.
"""

from __future__ import annotations

import codecs
import errno
import os
import select
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
_INTERVAL = 1.0
"""How often (s) we check that the reader is there: else we would notice only at the next line, which may come tomorrow."""
_GONE = (errno.EPIPE, errno.EIO)
"""The errors of a write to a pipe or a terminal that was closed."""


class Printer:
    """Write lines to standard output in a thread.

    Args:
        on_reader_gone: Called when the reader has closed the pipe or the terminal, and when a write has failed.
        line_for: Makes a line that is printed from the text that lines were left out.

    Attributes:
        failure: Why a write has failed, such as a full disk. None: no write has, or the reader is gone.
    """

    def __init__(self, on_reader_gone: Callable[[], None], line_for: Callable[[str], str] = str) -> None:
        self._on_reader_gone, self._line_for = on_reader_gone, line_for
        self._lines: deque[str] = deque()
        self._left_out = 0
        self.failure: OSError | None = None
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
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_reader)
            try:
                while self._lines or not self._closed:
                    if not self._lines:
                        await self._wake_receiver.receive()
                        continue
                    await trio.to_thread.run_sync(_write, self._take(), abandon_on_cancel=True, limiter=threads)
            except OSError as error:
                self.failure = None if error.errno in _GONE else error
                self._on_reader_gone()
            finally:
                self._finished.set()
                nursery.cancel_scope.cancel()

    async def close(self) -> None:
        """Wait until everything is written, at most 2 s."""
        self._closed = True
        self._wake()
        with trio.move_on_after(_CLOSE_LIMIT):
            await self._finished.wait()

    async def _watch_reader(self) -> None:
        try:
            descriptor = sys.stdout.fileno()
        except (OSError, ValueError):
            return
        while hasattr(select, "poll"):
            poll = select.poll()
            poll.register(descriptor, 0)  # errors are always reported
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                self._on_reader_gone()
                return
            await trio.sleep(_INTERVAL)

    def _wake(self) -> None:
        with suppress(trio.WouldBlock):  # it is set already
            self._wake_sender.send_nowait(None)

    def _take(self) -> bytes:
        lines = list(self._lines)
        self._lines.clear()
        if self._left_out:
            lines.append(self._line_for(f"… {self._left_out:,} lines left out …"))
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
