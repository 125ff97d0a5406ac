"""`cronactors run` as process 1 of a process namespace, as in a container."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli_command import COMMAND, FILE, ROOT, lines_of

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def refusal() -> str:
    """Why there can be no namespace here; "" if there can."""
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = subprocess.run([*UNSHARE, "true"], check=False, capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"unshare is not permitted: {tried.stderr.strip()}"


pytestmark = [
    pytest.mark.slow,  # real processes in a namespace of their own
    pytest.mark.skipif(bool(refusal()), reason=refusal() or "-"),
]

ORPHANS = """
[[cron.jobs]]
name = "orphans"
prompt = "for i in 1 2 3; do (setsid sleep 0.1 >/dev/null 2>&1 &) ; done; echo left"
every_ms = 200
"""
FAILS = '[[cron.jobs]]\nname = "fails"\nprompt = "exit 3"\nin_secs = 0\n'
SLOW = '[[cron.jobs]]\nname = "slow"\nprompt = "trap \'\' TERM; while :; do sleep 0.1; done"\nin_secs = 0\n'


class Container:
    """The command as process 1 of a namespace, with its output in a file."""

    def __init__(self, folder: Path, *args: str, terminal: int | None = None) -> None:
        self.output = folder / "output.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*([] if terminal is None else ["setsid", "--ctty"]), *UNSHARE, *COMMAND, *args],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, condition: Callable[[], object], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.text()
            assert self.process.poll() is None, self.text()
            time.sleep(0.02)

    def wait_for_line(self, pattern: str) -> None:
        self.wait_for(lambda: lines_of(self.text(), pattern))

    @property
    def first(self) -> int:
        """Process 1 of the namespace, by its id outside."""
        return children(self.process.pid)[0]

    @property
    def runner(self) -> int:
        """The process in it that runs jobs."""
        return children(self.first)[0]

    def end(self) -> tuple[int, str]:
        return self.process.wait(20), self.text()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def zombies(parents: list[int]) -> list[int]:
    states = {
        child: Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for pid in parents for child in children(pid)
    }
    return [child for child, state in states.items() if state == "Z"]


@pytest.fixture
def contain(tmp_path) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def contain(jobs: str, *args: str) -> Container:
        (tmp_path / "agent.toml").write_text(FILE + jobs)
        started.append(Container(tmp_path, "run", *args))
        return started[-1]

    yield contain
    for container in started:
        container.process.kill()
        container.process.wait()


def test_orphans_are_reaped(contain):
    container = contain(ORPHANS)
    container.wait_for(lambda: len(lines_of(container.text(), "orphans .*success")) >= 10)
    counts = []
    for _ in range(20):
        try:
            counts.append(len(zombies([container.first, *children(container.first)])))
        except OSError:  # one of them was reaped meanwhile
            continue
        time.sleep(0.02)
    assert len(counts) >= 5
    assert min(counts) == 0, counts  # those that have just exited may be there, and never pile up
    assert max(counts) < 10, counts


def test_exit_statuses_of_commands_are_not_lost(contain):
    code, text = contain(FAILS, "--for", "1").end()
    assert code == 0, text
    assert lines_of(text, "fails .*failed .*exit status 3")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on(contain, number):
    container = contain(ORPHANS)
    container.wait_for_line("orphans .*success")
    os.kill(container.first, signal.SIGHUP)
    container.wait_for_line("read agent.toml again: 1 job unchanged")
    os.kill(container.first, number)
    code, text = container.end()
    assert code == 0, text
    assert lines_of(text, f"^{number.name}: stopping in order")
    assert text.splitlines()[-1].startswith("ended: ")


def test_a_second_signal_stops_at_once_with_its_status(contain):
    container = contain(SLOW)
    container.wait_for_line("slow .*started")
    os.kill(container.first, signal.SIGTERM)
    container.wait_for_line("waiting at most 5 s for 1 run;")
    os.kill(container.first, signal.SIGTERM)
    assert container.end()[0] == 128 + signal.SIGTERM


def test_the_exit_status_of_a_child_that_was_killed(contain):
    container = contain(ORPHANS)
    container.wait_for_line("orphans .*success")
    os.kill(container.runner, signal.SIGKILL)
    assert container.process.wait(20) == 128 + signal.SIGKILL


def test_the_exit_status_of_an_error(contain):
    code, text = contain("[[cron.jobs]]\nname = 5\n").end()
    assert code == 1
    assert re.search("^cronactors: .*prompt is missing", text, re.MULTILINE)


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid")
def test_a_signal_of_the_terminal_arrives_once(tmp_path):
    """The terminal signals the whole process group. If we passed the signal on too, it would be a second one, which stops at once."""
    (tmp_path / "agent.toml").write_text(FILE + '[[cron.jobs]]\nname = "slow"\nprompt = "sleep 1.5"\nin_secs = 0\n')
    ours, theirs = pty.openpty()
    container = Container(tmp_path, "run", terminal=theirs)
    os.close(theirs)
    try:
        container.wait_for_line("slow .*started")
        os.kill(container.first, signal.SIGSTOP)  # so that a signal which it passes on arrives later
        os.write(ours, b"\x03")
        container.wait_for_line("waiting at most 5 s for 1 run;")
        os.kill(container.first, signal.SIGCONT)
        code, text = container.end()
    finally:
        container.process.kill()
        container.process.wait()
        os.close(ours)
    assert code == 0, text
    assert len(lines_of(text, "SIGINT: stopping in order")) == 1
    assert lines_of(text, "slow .*success")


def test_any_other_process_does_not_fork(tmp_path):
    script = "import os; from cronactors.cli.container_init import fork_as_container_init as become; become(); print(os.getpid())"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid
