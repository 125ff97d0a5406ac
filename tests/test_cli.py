"""The command, as users start it: in a process of its own, with its output in a pipe."""

from __future__ import annotations

import json
import os
import pty
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import trio

import cronactors
from cronactors.cli.database import find_database
from cronactors.cli.printer import Printer

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
prompt = "echo begun >>begun.txt; [ -e finish ] || sleep 60; echo finished"
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
        """Wait for a line."""
        deadline = time.monotonic() + seconds
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


def lines_of(text: str, pattern: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(pattern, line)]


# without a scheduler


def test_version_is_quick_and_imports_nothing_heavy():
    code = "import sys; sys.argv[1:] = ['--version']; from cronactors.cli import main; main()"
    code += "; assert not {'click', 'rich', 'sqlite_utils', 'asyncio'} & set(sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert answer.stdout == f"cronactors {cronactors.__version__}\n"


@pytest.mark.parametrize("module", ["rich", "click"])
def test_missing_extra_says_what_to_type(module):
    code = f"import sys; sys.argv[1:] = ['list']; sys.modules['{module}'] = None; from cronactors.cli import main; main()"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert answer.returncode == 1
    assert answer.stderr == 'cronactors: the command line needs the extra "cli": pip install "cronactors[cli]"\n'


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
def test_wrong_executor(start, tmp_path, executor, message):
    (tmp_path / "agent.toml").write_text("[cron]")
    code, text = start("run", *(["--executor", executor] if executor else [])).end()
    assert (code, text.startswith(f"cronactors: {message}")) == (1, True)
    assert not (tmp_path / "agent.db").exists()


def test_database_is_found_in_order(tmp_path, monkeypatch):
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


# the printer


@pytest.fixture
def pipe(monkeypatch) -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    yield reader, writer
    monkeypatch.undo()
    os.close(reader)
    stream.close()


async def test_printer_holds_nobody_up_and_leaves_out_what_is_too_much(pipe):
    printer = Printer(lambda: pytest.fail("lost"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(printer.run)
        printer.say("x" * 1_000_000)  # more than the pipe takes
        await trio.sleep(0.05)
        for number in range(20_000):
            printer.say(str(number))
        closing = trio.current_time()
        received = bytearray()

        async def read() -> None:
            while not received.endswith(b"left out \xe2\x80\xa6\n"):
                received.extend(await trio.to_thread.run_sync(os.read, pipe[0], 1 << 20))

        nursery.start_soon(read)
        await printer.close()
    assert trio.current_time() - closing < 2
    lines = received.decode().splitlines()
    assert lines[1:3] == ["0", "1"]
    assert lines[-2:] == ["9999", "… 10,000 lines left out …"]


async def test_printer_gives_up_on_a_reader_that_stands_still(pipe, autojump_clock):
    printer = Printer(lambda: pytest.fail("lost"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(printer.run)
        printer.say("x" * 1_000_000)
        await printer.close()
        nursery.cancel_scope.cancel()
        os.set_blocking(pipe[0], False)
        while True:
            try:
                os.read(pipe[0], 1 << 20)
            except BlockingIOError:
                break


async def test_printer_tells_when_nobody_reads():
    lost = trio.Event()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        printer = Printer(lost.set)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(printer.run)
            printer.say("x")
            await lost.wait()
            printer.say("y")
            await printer.close()


# with a scheduler


@pytest.mark.slow
def test_run_says_what_it_does(start, write, tmp_path):
    write(QUICK)
    code, text = start("run", "--for", "2.5").end()
    assert code == 0, text
    assert text.startswith(
        f"cronactors {cronactors.__version__}\nfile      {tmp_path}/agent.toml\ndatabase  {tmp_path}/jobs.db\n"
    )
    assert "zone      Europe/Rome\nslots     3 runs at a time\n" in text
    assert re.search(rf"^  every    next {TIME}  \(every 0.3 s\)$", text, re.MULTILINE)
    assert "cronactors runs every --config agent.toml" in text
    started, ended = lines_of(text, "every .*started"), lines_of(text, "every .*success")
    assert len(started) >= 5
    assert abs(len(started) - len(ended)) <= 1
    assert re.fullmatch(rf"{TIME}  every    attempt 1  success    \d\.\d\d s  one", ended[0])
    assert len(lines_of(text, "seconds .*success .* six fields")) >= 2
    assert len(lines_of(text, "once .*success .* hello")) == 1
    assert re.search(rf"fails    attempt 1  failed     \d\.\d\d s  .*exit status 3: bad; again at {TIME}$", text, re.MULTILINE)
    assert re.match(r"ended: \d+ runs \(.*\); nothing is lost", text.splitlines()[-1])


@pytest.mark.slow
def test_second_start_goes_on_and_does_not_repeat_the_one_shot(start, write, tmp_path):
    write(QUICK)
    assert start("run", "--for", "1").end()[0] == 0
    code, text = start("run", "--for", "1").end()
    assert code == 0
    assert not lines_of(text, "once .*started")
    assert lines_of(text, "every .*success")
    assert (tmp_path / "once.txt").read_text() == "once\n"


@pytest.mark.slow
def test_list_and_runs_while_a_scheduler_has_the_file_open(start, write):
    write(QUICK)
    running = start("run")
    for name in ("every", "once", "fails"):
        running.wait_for(f"{name} .*(success|failed)")
    code, text = start("list").end()
    assert code == 0, text
    assert lines_of(text, rf"^every +every 0.3 s +Europe/Rome +{TIME} +{TIME} +enabled")
    assert lines_of(text, "^once +once, .* done")
    assert lines_of(text, "^fails .* retrying .*exit status 3: bad")
    code, text = start("list", "--json").end()
    jobs = {job["name"]: job for job in json.loads(text)}
    assert code == 0
    assert jobs["every"]["schedule"] == {"kind": "interval", "every_ms": 300}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", jobs["every"]["next_run_at"])
    code, text = start("runs", "every", "--limit", "2").end()
    assert code == 0
    assert len(lines_of(text, r"success +\d\.\d\d s +one")) >= 1
    assert len(text.splitlines()) == 3
    code, text = start("runs", "once", "--config", "agent.toml", "--json").end()
    assert [run["status"] for run in json.loads(text)] == ["success"]
    assert json.loads(text)[0]["result_summary"] == "hello"
    code, text = start("runs", "absent").end()
    assert (code, text) == (1, "cronactors: no job has the name 'absent'; cronactors list shows them")
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0


@pytest.mark.slow
def test_kill_9_on_the_line_that_says_started(start, write, tmp_path):
    write(SLOW)
    first = start("run")
    first.wait_for("slow .*started")
    first.process.kill()
    assert first.end()[0] == -signal.SIGKILL
    (tmp_path / "finish").touch()
    second = start("run", "--for", "4")
    assert "attempt 1" in second.wait_for("^interrupted: slow")
    second.wait_for("slow .*attempt 2 .*success .*finished")
    code, text = second.end()
    assert code == 0
    assert len(lines_of(text, "slow .*started")) == 1
    assert (tmp_path / "begun.txt").read_text() == "begun\n" * 2
    runs = json.loads(start("runs", "slow", "--json").end()[1])
    assert [(run["attempt"], run["status"], run["cause"]) for run in runs] == [(2, "success", None), (1, "failed", "interrupted")]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_in_order(start, write, number):
    write(QUICK)
    running = start("run")
    running.wait_for("every .*success")
    running.process.send_signal(number)
    code, text = running.end()
    assert code == 0, text
    assert lines_of(text, f"^{number.name}: ending in order")
    assert text.splitlines()[-1].startswith("ended: ")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_at_once(start, write, tmp_path, number):
    write(SLOW)
    running = start("run")
    running.wait_for("slow .*started")
    running.process.send_signal(number)
    running.wait_for("waiting for 1 running")
    asked = time.monotonic()
    running.process.send_signal(number)
    code, text = running.end()
    assert time.monotonic() - asked < 3
    assert code == 128 + number
    assert lines_of(text, "slow .*interrupted")
    (tmp_path / "finish").touch()
    again = start("run", "--for", "2")
    again.wait_for("slow .*success")
    assert again.end()[0] == 0


@pytest.mark.slow
def test_job_taken_out_of_the_file_is_gone_and_its_runs_are_kept(start, write):
    write(QUICK)
    first = start("run")
    first.wait_for("once .*success")
    first.process.send_signal(signal.SIGINT)
    assert first.end()[0] == 0
    write(SLOW.replace("sleep 60", "true"))
    assert start("run", "--for", "0.5").end()[0] == 0
    assert [job["name"] for job in json.loads(start("list", "--json").end()[1])] == ["slow"]
    assert len(json.loads(start("runs", "once", "--json").end()[1])) == 1


@pytest.mark.slow
def test_executor_beside_the_file_beats_the_one_in_it(start, write, tmp_path):
    write(QUICK)
    (tmp_path / "my_agent.py").write_text("async def execute(context):\n    return f'agent did {context.prompt!r}'\n")
    running = start("run", "--executor", "my_agent:execute", "--db", "other.db", PYTHONDONTWRITEBYTECODE="1")
    running.wait_for("every .*success .*agent did 'echo one; echo two'")
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "jobs.db").exists()


@pytest.mark.slow
def test_what_a_terminal_would_obey_is_made_harmless(start, write):
    write('[[cron.jobs]]\nname = "[bold]x[/]"\nprompt = "printf \'\\\\033]0;title\\\\007\\\\033[31mred[bold]\'"\nin_secs = 0')
    running = start("run")
    line = running.wait_for(r"\[bold\]x\[/\] .*success")
    assert line.endswith(r"\x1b]0;title\x07\x1b[31mred[bold]")
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0
    assert "\x1b" not in start("list").end()[1]
    assert r"\x1b]0;title\x07\x1b[31mred[bold]" in start("runs", "[bold]x[/]").end()[1]


@pytest.mark.slow
def test_reader_that_goes_away_ends_it_in_order(write, tmp_path):
    write(QUICK)
    with subprocess.Popen(
        [*COMMAND, "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(20) == 1


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(write, tmp_path, closed):
    write(QUICK)
    command = f'"$0" -c "from cronactors.cli import main; main()" run --for 1 {closed}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["/bin/sh", "-c", command, sys.executable], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert (tmp_path / "once.txt").read_text() == "once\n"


@pytest.mark.slow
def test_terminal_gets_colours(write, tmp_path):
    write(QUICK)
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "NO_COLOR": ""}
    with subprocess.Popen(
        [*COMMAND, "run", "--for", "1"], cwd=tmp_path, env=environment, stdout=follower, stdin=follower
    ) as process:
        os.close(follower)
        text = b""
        try:
            while piece := os.read(leader, 65536):
                text += piece
        except OSError:  # the other side is closed
            pass
        os.close(leader)
        assert process.wait() == 0
    assert b"\x1b[32msuccess" in text
