"""The live view of `watch` on a terminal: when there is one, and that it leaves the terminal as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from cronactors.cli.watch_screen import find_screen
from tests.cli.test_printer import standard_output_in_a_pipe
from tests.cli.test_watch import make
from tests.cli_command import COMMAND, ROOT


def test_there_is_no_live_view_without_a_terminal_or_without_rich(monkeypatch: pytest.MonkeyPatch):
    with standard_output_in_a_pipe():
        assert find_screen() is None
    main, terminal = pty.openpty()
    try:
        with os.fdopen(terminal, "w", encoding="utf-8") as stream:
            for term, without_rich, found in (("xterm", False, True), ("dumb", False, False), ("xterm", True, False)):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(sys, "stdout", stream)
                    patch.setenv("TERM", term)
                    if without_rich:
                        patch.setitem(sys.modules, "rich.console", None)
                    screen = find_screen()
                assert (screen is not None) is found, (term, without_rich)
    finally:
        os.close(main)


def take_terminal() -> None:
    """Let the terminal send signals to this process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, folder: Path, *args: str, columns: int, rows: int) -> None:
        self._main, self._terminal = pty.openpty()
        termios.tcsetwinsize(self._main, (rows, columns))
        self.before = termios.tcgetattr(self._terminal)
        self.output = ""
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - this process has no other threads
        )

    def press(self, keys: bytes) -> None:
        os.write(self._main, keys)

    def resize(self, columns: int, rows: int) -> None:
        termios.tcsetwinsize(self._main, (rows, columns))

    def wait_for(self, pattern: str, *, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        os.set_blocking(self._main, False)
        while re.search(pattern, self.output) is None:
            assert time.monotonic() < deadline, self.output
            try:
                self.output += os.read(self._main, 65_536).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.01)

    @property
    def now(self) -> list[int | list[bytes | int]]:
        return termios.tcgetattr(self._terminal)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)
        os.close(self._terminal)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    trio.run(make, tmp_path)
    command = Terminal(tmp_path, "watch", "--db", "jobs.db", columns=80, rows=24)
    yield command
    command.close()


@pytest.mark.slow
@pytest.mark.parametrize(("key", "status"), [(b"q", 0), (b"\x1c", 131)], ids=["q", "Ctrl-backslash"])
def test_a_terminal_is_as_it_was_before_after_the_end(terminal: Terminal, key: bytes, status: int):
    terminal.wait_for(r"success .*report")
    assert terminal.output.startswith("\x1b[?1049h")
    assert terminal.now != terminal.before, "keys are read one by one"
    terminal.press(b"\x13")  # Ctrl-S, which would pause it
    terminal.resize(40, 10)
    terminal.wait_for(r"jobs\.db\S* {25}\d\d:\d\d:\d\d")
    terminal.press(key)
    assert terminal.process.wait(20) == status
    terminal.wait_for(re.escape("\x1b[?1049l"))
    assert terminal.output.count("\x1b[?25l") == terminal.output.count("\x1b[?25h") == 1, "the cursor is shown again"
    assert terminal.now == terminal.before
