"""What a newcomer types from the README, line by line, with the command of the installed wheel, and what they read."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from cronactors import Cron, JobContext, open_scheduler
from cronactors.testing import VirtualClock
from tests.cli_command import ROOT

pytestmark = pytest.mark.slow

CRONTAB = """MAILTO=admin@example.org
# how full the disk is
* * * * * df -h . | tail -n 1
@reboot echo started
"""
CHANGES = r"in the next year \d+ times are gone, \d+ are new, \d+ stay\n"
PAUSED = r"report: at 02:30 every day, Europe/Rome, paused\n"
RESUME = r"The job is paused\. `cronactors resume` lets it continue\.\n"
SKIPPED_HOUR = r"  02:30 does not exist: runs at 03:00 \(the clock goes from 02:00 to 03:00\)\n"
READS = [
    ("import-crontab", r"cronactors: 1 line is not translated: comments in the file say why\n"),
    ("run", r""),
    ("add", r"added report: at 02:30 every day; next \d{4}-\d\d-\d\d 02:30:00 CES?T\n"),
    ("list", r"name .*\n(.*\n)*df .*\n(.*\n)*2 jobs\n"),
    ("run-now", r"run \d+ of report is requested\nrun \d+: success after [\d.]+ s  done\n"),
    ("runs", r".*\n.* manual .* success .* done\n"),
    ("update", r"from  at 02:30 every day, .*\nto    at 03:00 every day, .*\n" + CHANGES + r"(.*\n)*nothing was changed.*\n"),
    ("pause", r"paused report: .*\n"),
    ("explain", PAUSED + r"(.*\n)*.* was not planned: the job was added later, .*\n(.*\n)*" + RESUME),
    ("explain", PAUSED + r".* was not planned: the job was added later, .*\n" + SKIPPED_HOUR + RESUME),
    ("backup", r"backed up .*agent\.db to backup\.db: 2 jobs and \d+ runs?, .*\n"),
    ("doctor", r"(OK .*\n)+"),
]
"""The commands in their order, and what each prints."""


def lines() -> list[str]:
    """Return the commands of the README."""
    (block,) = re.findall(r"<!-- from-a-shell -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, install it into an environment of its own, and return the folder of its programs.

    The environment has no pip, and finds the requirements among the packages of this one: nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("wheel")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def python(*args: str | Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *args], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    python("build", "--wheel", "--no-isolation", "--outdir", folder)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    home = folder / "venv" / "bin"
    (wheel,) = folder.glob("*.whl")
    python("pip", "--python", home / "python", "install", "-q", "--no-deps", "--no-index", wheel)
    found = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (package,) = folder.glob("venv/lib/python*/site-packages")
    (package / "requirements.pth").write_text("".join(f"{path}\n" for path in found), encoding="utf-8")
    code = "import cronactors; print(cronactors.__file__)"
    file = subprocess.run(
        [home / "python", "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert Path(file.strip()) == package / "cronactors" / "__init__.py"
    script(home, "crontab", f"cat <<'END'\n{CRONTAB}END")
    return home


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(stat.S_IRWXU)


class Shell:
    """The shell of a newcomer, in an empty folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "80", "PYTHONWARNINGS": "error"}
        for name in ("CRONACTORS_DB", "PYTHONPATH", "VIRTUAL_ENV"):
            self.env.pop(name, None)

    def type(self, line: str, **env: str) -> str:
        """Run a line, and return what it prints."""
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout)
        return done.stdout

    @contextmanager
    def other_terminal(self, line: str, until: str) -> Iterator[Path]:
        """Run a line while the block runs, from when on it has printed a text; then press Ctrl-C. The file has what it prints."""
        file = self.folder / "other_terminal.txt"
        with file.open("wb") as output:
            process = subprocess.Popen(
                line.split(), cwd=self.folder, env=self.env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            deadline = time.monotonic() + 60
            while until not in file.read_text(encoding="utf-8"):
                assert process.poll() is None, file.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, file.read_text(encoding="utf-8")
                time.sleep(0.02)
            yield file
            process.send_signal(signal.SIGINT)
            process.wait(60)
        finally:
            process.kill()
            process.wait()


def test_the_commands_of_the_readme(programs: Path, tmp_path: Path) -> None:
    shell = Shell(programs, tmp_path)
    typed = lines()
    assert [re.findall(r"cronactors (\S+)", line) for line in typed] == [[verb] for verb, _ in READS]

    def type_all(part: slice) -> None:
        for line, (_, pattern) in zip(typed[part], READS[part], strict=True):
            found = shell.type(line)
            assert re.fullmatch(pattern, found), (line, found)

    type_all(slice(1))
    assert "# @reboot echo started" in (tmp_path / "agent.toml").read_text(encoding="utf-8")
    with shell.other_terminal(typed[1], "agent.db") as seen:
        type_all(slice(2, None))
    assert re.search(r"report .*success", seen.read_text(encoding="utf-8"))


async def write(context: JobContext) -> str:
    await trio.sleep(5)
    return "written"


async def run_until_next_morning(clock: VirtualClock, database: Path) -> None:
    """Run a job at 02:30 in Rome on the days around a clock change."""
    clock.set_wall("2026-03-27T12:00+01:00")
    async with open_scheduler(database, write, timezone="Europe/Rome") as scheduler:
        await scheduler.store.add_job("report", "write it", Cron("30 2 * * *"))
        await trio.sleep(3 * 86_400)


def test_why_nothing_ran_at_half_past_two_in_the_night_of_the_clock_change(programs: Path, tmp_path: Path) -> None:
    (line,) = (line for line in lines() if "2026-03-29" in line)
    clock = VirtualClock()
    trio.run(run_until_next_morning, clock, tmp_path / "night.db", clock=clock)
    shell = Shell(programs, tmp_path)
    assert shell.type(line, CRONACTORS_DB="night.db").splitlines()[:3] == [
        "report: at 02:30 every day, Europe/Rome",
        "2026-03-29 03:00:00 CEST ran: run 2 started at 2026-03-29 03:00:00 CEST, on time; success after 5.00 s.",
        "  02:30 does not exist: runs at 03:00 (the clock goes from 02:00 to 03:00)",
    ]
    runs = shell.type("cronactors runs report --db night.db")
    assert re.findall("2026-03-[0-9]+ [0-9:]+ CES?T(?= +1 )", runs) == [
        "2026-03-30 02:30:00 CEST",
        "2026-03-29 03:00:00 CEST",
        "2026-03-28 02:30:00 CET",
    ]
