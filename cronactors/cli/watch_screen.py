"""The terminal of the live view: lines drawn by rich on the alternate screen, and keys that are read one by one.

Runs in the event loop. We wait until the terminal takes output before we draw: a slow one would block the loop. Lines are cut to the
width before, and the terminal is set not to wrap: it may think that a character is wider than we do.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import trio

from cronactors.cli.watch_view import Line

if TYPE_CHECKING:
    from rich.console import Console

try:
    import termios
    import tty
except ImportError:  # Windows: no keys are read there, Ctrl-C ends the view
    HAS_TERMIOS = False
else:
    HAS_TERMIOS = True

_FALLBACK = (80, 24)
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"


def find_screen() -> Screen | None:
    """Return the terminal that standard output is; None if it is none, cannot be drawn on, or rich is not installed, which it says."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        sys.stderr.write("cronactors: lines only, as the live view needs rich: pip install 'cronactors[cli]'\n")
        return None
    console = Console(highlight=False)
    can_draw = console.is_terminal and not console.is_dumb_terminal and not console.legacy_windows
    return Screen(console) if can_draw else None


class Screen:
    """A context manager: within it the view covers the terminal, which is as it was before afterwards.

    Args:
        console: A console on the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._output = sys.stdout.fileno()
        self._input = sys.stdin.fileno() if HAS_TERMIOS and sys.stdin.isatty() else None
        self._terminal = self._output if self._input is None else self._input
        self._settings: list[int | list[bytes | int]] | None = None
        self._is_entered = False

    def __enter__(self) -> Self:
        """Cover the terminal."""
        self._is_entered = True
        try:
            if HAS_TERMIOS:
                self._settings = termios.tcgetattr(self._terminal)
                tty.setcbreak(self._terminal, termios.TCSANOW)  # signals such as Ctrl-C still come as signals
                mode = termios.tcgetattr(self._terminal)
                mode[0] &= ~termios.IXON  # Ctrl-S is a key like any other: it would block the end, until Ctrl-Q
                termios.tcsetattr(self._terminal, termios.TCSANOW, mode)
            self._console.set_alt_screen()
            self._console.file.write(_WRAP_OFF)
            self._console.show_cursor(show=False)
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Uncover it."""
        self.leave()

    def leave(self) -> None:
        """Restore the terminal; a second time does nothing."""
        if not self._is_entered:
            return
        self._is_entered = False
        with suppress(OSError):
            self._console.file.write(_WRAP_ON)
            self._console.show_cursor()
            self._console.set_alt_screen(enable=False)
        if self._settings is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._terminal, termios.TCSANOW, self._settings)

    def suspend(self) -> None:
        """Let the shell have the terminal, as Ctrl-Z does, until the process is continued."""
        self.leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # returns once it is continued; at once if no shell could continue it
        signal.signal(signal.SIGTSTP, handler)
        self.__enter__()

    def size(self) -> tuple[int, int]:
        """Return how many columns and rows the terminal has now."""
        try:
            columns, rows = os.get_terminal_size(self._output)
        except OSError:
            return _FALLBACK
        return columns or _FALLBACK[0], rows or _FALLBACK[1]

    async def draw(self, lines: Sequence[Line]) -> None:
        """Draw lines that fit, once the terminal takes output."""
        from rich.console import ConsoleDimensions
        from rich.text import Text

        await trio.lowlevel.wait_writable(self._output)
        if not self._is_entered:
            return
        self._console.size = ConsoleDimensions(*self.size())
        drawn = [Text.assemble(*((cell.text, cell.colour) for cell in line)) for line in lines]
        self._console.update_screen(Text("\n", no_wrap=True, overflow="crop").join(drawn))

    async def read_keys(self) -> bytes:
        """Wait for keys; b"" if the terminal is gone. Without a terminal as standard input it waits for ever."""
        if self._input is None:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(self._input)
        try:
            return os.read(self._input, 1024)
        except BlockingIOError:  # another process that shares the terminal has read them
            await trio.sleep(0.05)
            return b" "
        except OSError:
            return b""
