"""Standard output for all verbs: every text can be shown in its encoding, and ``run`` is never held up by a slow reader."""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import trio

_MOST_LINES = 10_000
_LAST_WORDS = 2.0


def shown(text: str) -> str:
    """Replace characters that the encoding of standard output lacks by backslash escapes, before columns are aligned."""
    encoding = _encoding()
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(line: str = "") -> None:
    """Print a line."""
    sys.stdout.write(f"{shown(line)}\n")
    sys.stdout.flush()


def say_json(value: object) -> None:
    """Print a value as JSON: in plain characters where they can be shown, else escaped as JSON has it (RFC 8259, 7)."""
    unicode = codecs.lookup(_encoding()).name.startswith("utf")
    say(json.dumps(value, indent=2, ensure_ascii=not unicode))


def _encoding() -> str:
    return sys.stdout.encoding or "utf-8"


class Printer:
    """Writes lines in a thread: a terminal that stands still (Ctrl-S) or a full pipe must not hold up jobs and timeouts.

    Args:
        on_lost: Called once if nobody can read the lines any more.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._lines: deque[str] = deque()
        self._left_out = 0
        self._encoder = codecs.getincrementalencoder(_encoding())("backslashreplace")  # of some a first mark tells the byte order
        self._closed = False
        self._ended = trio.Event()
        # Of size one: what was said while a write goes on is not forgotten.
        self._wake, self._woken = trio.open_memory_channel[None](1)

    def say(self, line: str = "") -> None:
        """Queue a line. If the reader is 10,000 lines behind, the line is left out and counted."""
        if len(self._lines) < _MOST_LINES:
            self._lines.append(line)
        else:
            self._left_out += 1
        self._nudge()

    async def run(self) -> None:
        """Write lines until `close`, or until nobody can read them. Cancelled: a write that goes on is left alone."""
        threads = trio.CapacityLimiter(1)  # the executors' threads may all be busy
        try:
            while self._lines or not self._closed:
                if not self._lines:
                    await self._woken.receive()
                    continue
                await trio.to_thread.run_sync(_write, self._take(), abandon_on_cancel=True, limiter=threads)
        except OSError:
            self._on_lost()
        finally:
            self._ended.set()

    async def close(self) -> None:
        """Wait until everything is written, at most two seconds."""
        self._closed = True
        self._nudge()
        with trio.move_on_after(_LAST_WORDS):
            await self._ended.wait()

    def _nudge(self) -> None:
        with suppress(trio.WouldBlock):  # then it will look anyway
            self._wake.send_nowait(None)

    def _take(self) -> bytes:
        lines = list(self._lines)
        self._lines.clear()
        if self._left_out:
            lines.append(f"… {self._left_out:,} lines left out …")
            self._left_out = 0
        return self._encoder.encode("".join(f"{line}\n" for line in lines))


def _write(data: bytes) -> None:
    """Write to the descriptor itself: a buffer that a thread holds locked would hang the interpreter's end."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]
        except BlockingIOError:  # somebody made it non-blocking
            time.sleep(0.05)
