"""The command in a process of its own, as users start it, with its output in a pipe."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cronactors

ROOT = Path(cronactors.__file__).parent.parent
COMMAND = [sys.executable, "-W", "error", "-c", "from cronactors.cli import main; main()"]
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z0-9+-]+"

FILE = """
timezone = "Europe/Rome"
model = "of the agent"
[cron]
database = "jobs.db"
executor = "shell"
max_concurrent_runs = 3
"""
QUICK = """
[[cron.jobs]]
name = "every"
prompt = "echo one; echo two"
every_ms = 300
[[cron.jobs]]
name = "seconds"
prompt = "echo six fields"
cron = "* * * * * *"
[[cron.jobs]]
name = "once"
prompt = "echo once >>once.txt; echo hello"
in_secs = 0
[[cron.jobs]]
name = "fails"
prompt = "echo bad >&2; exit 3"
in_secs = 0
"""
SLOW = """
[[cron.jobs]]
name = "slow"
prompt = "echo started >>started.txt; while [ ! -e finish ]; do sleep 0.05; done; echo finished"
in_secs = 0
"""


class Command:
    """A running command whose lines can be waited for."""

    def __init__(self, folder: Path, *args: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/dev/null/home", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, pattern: str, seconds: float = 20) -> str:
        """Wait for a line, unless it came already."""
        deadline = time.monotonic() + seconds
        for line in self.lines:
            if re.search(pattern, line):
                return line
        while True:
            line = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            assert line is not None, f"ended without {pattern!r}: {self.lines}"
            self.lines.append(line)
            if re.search(pattern, line):
                return line

    def end(self, seconds: float = 20) -> tuple[int, str]:
        """Wait for the end."""
        status = self.process.wait(seconds)
        while (line := self._queue.get(timeout=5)) is not None:
            self.lines.append(line)
        return status, "\n".join(self.lines)

    def close(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def lines_of(text: str, pattern: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(pattern, line)]


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(*args: str, **env: str) -> Command:
        started.append(Command(tmp_path, *args, **env))
        return started[-1]

    yield start
    for command in started:
        command.close()


@pytest.fixture
def write(tmp_path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "agent.toml"
        file.write_text(FILE + text)
        return file

    return write
