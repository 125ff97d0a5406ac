"""The signals of `run`: in this process, and of a real terminal that goes away."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from cronactors import cli
from cronactors.cli import hang_up, signals
from tests.cli_command import QUICK, ROOT, lines_of, start, write

__all__ = ["start", "write"]

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")

WITH_TERMINAL = """
import fcntl, signal, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from cronactors.cli import main
main()
"""


class Target:
    """What the signals asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._changed = trio.Event()

    def stop_in_order(self, reason: str) -> None:
        self._note(f"stop: {reason}")

    def stop_at_once(self, status: int) -> None:
        self._note(f"at once: {status}")

    def read_again(self) -> None:
        self._note("read")

    def _note(self, text: str) -> None:
        self.asked.append(text)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, count: int) -> None:
        with trio.fail_after(10):
            while len(self.asked) < count:
                await self._changed.wait()


@pytest.fixture
def default_hang_up() -> Iterator[None]:
    """Let SIGHUP end the process, as in a shell; a test run may be one of nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether there is a terminal: the first answer is that at the start, the last one stays."""
    answers = [False]
    for module in (hang_up, signals):
        monkeypatch.setattr(module, "has_terminal", lambda: answers.pop(0) if len(answers) > 1 else answers[0])
    monkeypatch.setattr(signals, "_TERMINAL_GOES", 0.05)
    return answers


async def send(target: Target, *numbers: signal.Signals) -> None:
    """Send signals, each after the one before had its effect."""
    async with trio.open_nursery() as nursery:
        await nursery.start(signals.watch_signals, target)
        for number in numbers:
            before = len(target.asked)
            os.kill(os.getpid(), number)
            await target.wait_for(before + 1)
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("default_hang_up")
@pytest.mark.parametrize("answers", [[False], [True]])
async def test_a_hang_up_reads_the_file_again_without_a_terminal_and_while_there_is_one(
    terminal: list[bool], answers: list[bool]
) -> None:
    terminal[:] = answers
    target = Target()
    await send(target, signal.SIGHUP, signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    assert target.asked == ["read", "read", "read", "stop: SIGTERM", "at once: 130"]


@pytest.mark.usefixtures("default_hang_up")
async def test_a_hang_up_stops_in_order_when_the_terminal_has_gone(terminal: list[bool]) -> None:
    terminal[:] = [True, False]
    target = Target()
    await send(target, signal.SIGHUP, signal.SIGTERM)
    assert target.asked == ["stop: SIGHUP, as the terminal has gone", "at once: 143"]


@pytest.mark.usefixtures("default_hang_up")
@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
async def test_a_hang_up_is_never_a_second_signal(terminal: list[bool], first: signal.Signals) -> None:
    """The kernel sends it when the terminal goes, and again when the shell has exited."""
    terminal[:] = [True, False]
    target = Target()
    async with trio.open_nursery() as nursery:
        await nursery.start(signals.watch_signals, target)
        os.kill(os.getpid(), first)
        await target.wait_for(1)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
            await trio.sleep(0.1)  # longer than it waits for the terminal to go
        nursery.cancel_scope.cancel()
    assert len(target.asked) == 1
    assert target.asked[0].startswith(f"stop: {first.name}")


@pytest.mark.usefixtures("default_hang_up")
async def test_a_terminal_that_goes_during_the_imports_stops_it_too(terminal: list[bool]) -> None:
    terminal[:] = [True]
    hang_up.note_hang_ups()
    terminal[:] = [False]
    os.kill(os.getpid(), signal.SIGHUP)
    target = Target()
    async with trio.open_nursery() as nursery:
        await nursery.start(signals.watch_signals, target)
        await target.wait_for(1)
        nursery.cancel_scope.cancel()
    assert target.asked == ["stop: SIGHUP, as the terminal has gone"]


@pytest.mark.usefixtures("default_hang_up")
@pytest.mark.parametrize(("seconds", "effect"), [(3, "stop: SIGHUP, as the terminal has gone"), (5, "read")])
async def test_a_hang_up_long_after_the_end_of_the_terminal_reads_the_file(
    terminal: list[bool], autojump_clock: trio.testing.MockClock, seconds: float, effect: str
) -> None:
    """As after `disown` and the end of the terminal: a program in the background is still running."""
    terminal[:] = [True, False]  # it goes at once
    target = Target()
    async with trio.open_nursery() as nursery:
        await nursery.start(signals.watch_signals, target)
        await trio.sleep(seconds)
        os.kill(os.getpid(), signal.SIGHUP)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert target.asked == [effect]


@pytest.mark.usefixtures("default_hang_up", "terminal")
async def test_a_third_signal_kills_the_process_and_a_hang_up_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target()
    monkeypatch.setattr(os, "_exit", lambda status: target._note(f"killed: {status}"))
    async with trio.open_nursery() as nursery:
        await nursery.start(signals.watch_signals, target)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(os.getpid(), number)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert ("killed: 143" in target.asked) == (number is signal.SIGINT)
        nursery.cancel_scope.cancel()
    assert target.asked == ["stop: SIGTERM", "at once: 143", "killed: 143"]


@pytest.mark.usefixtures("default_hang_up", "terminal")
async def test_a_hang_up_before_the_signals_are_received_is_not_lost() -> None:
    hang_up.note_hang_ups()
    os.kill(os.getpid(), signal.SIGHUP)
    for asked in (["read"], []):
        target = Target()
        async with trio.open_nursery() as nursery:
            await nursery.start(signals.watch_signals, target)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        assert target.asked == asked


async def test_nohup_ignores_hang_ups(terminal: list[bool]) -> None:
    terminal[:] = [True, False]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        target = Target()
        async with trio.open_nursery() as nursery:
            hang_up.note_hang_ups()
            await nursery.start(signals.watch_signals, target)
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            await target.wait_for(1)
            nursery.cancel_scope.cancel()
        assert target.asked == ["stop: SIGTERM"]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_hang_ups_are_noted_before_process_1_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def fork() -> None:
        calls.append("fork")
        raise SystemExit

    monkeypatch.setattr(cli, "_open_standard_streams", lambda: None)
    monkeypatch.setattr(cli, "note_hang_ups", lambda: calls.append("note"))
    monkeypatch.setattr(cli, "fork_as_container_init", fork)
    monkeypatch.setattr(sys, "argv", ["cronactors", "run"])
    with pytest.raises(SystemExit):
        cli.main()
    assert calls == ["note", "fork"]


@pytest.mark.slow
def test_a_service_reads_its_file_again(start, write) -> None:
    """As with `ExecReload=kill -HUP $MAINPID` of systemd: the command has a session of its own, without a terminal."""
    file = write(QUICK)
    running = start("run")
    running.wait_for("every .*success")
    file.write_text(file.read_text().replace('name = "seconds"', 'name = "each second"'))
    running.process.send_signal(signal.SIGHUP)
    line = running.wait_for("again: ")
    assert line.endswith("read agent.toml again: 1 added (each second); 1 removed (seconds); 3 jobs unchanged")
    running.wait_for("each second .*success")
    file.write_text(file.read_text() + "x =")
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("agent.toml is not applied, and nothing has changed: .*is not TOML")
    file.write_text(file.read_text().replace('"each second"', '"third"').replace("x =", ""))
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("third .*success")
    running.process.send_signal(signal.SIGTERM)
    code, text = running.end()
    assert code == 0
    assert not lines_of(text, "Traceback|interrupted")


@pytest.mark.slow
def test_a_terminal_that_goes_away_stops_it_in_order_and_one_that_stays_does_not(write, tmp_path: Path) -> None:
    write(QUICK)
    leader, follower = pty.openpty()
    output = tmp_path / "output.txt"

    def wait_for(pattern: str) -> None:
        deadline = time.monotonic() + 20
        while not lines_of(output.read_text(), pattern):
            assert time.monotonic() < deadline, output.read_text()
            assert process.poll() is None, output.read_text()
            time.sleep(0.02)

    with (
        output.open("wb") as stream,
        subprocess.Popen(
            [sys.executable, "-c", WITH_TERMINAL, "run"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=follower,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        ) as process,
    ):
        os.close(follower)
        try:
            wait_for("every .*success")
            process.send_signal(signal.SIGHUP)
            wait_for("read agent.toml again: 4 jobs unchanged")
        finally:
            os.close(leader)  # the window is closed
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
    text = output.read_text()
    assert lines_of(text, "^SIGHUP, as the terminal has gone: stopping in order$")
    assert text.splitlines()[-1].startswith("ended: ")
