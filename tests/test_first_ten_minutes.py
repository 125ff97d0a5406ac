"""What a newcomer types from the README, line by line, and what they read."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import cli_command
from tests.cli_command import COMMAND, ROOT, Command

start = cli_command.start

CRONTAB = """MAILTO=admin@example.org
# how full the disk is
* * * * * df -h . | tail -n 1
@reboot echo started
"""
READS = {
    "import-crontab": "",
    "add": r"added report: at 02:30 every day; next \d{4}-\d\d-\d\d 02:30:00 CES?T\n",
    "list": r"name .*\n(.*\n)*df .*\n(.*\n)*2 jobs\n",
    "run-now": r"run \d+ of report is requested\nrun \d+: success after [\d.]+ s  done\n",
    "runs": r".*\n.* manual .* success .* done\n",
    "update": r"from  at 02:30 every day, Europe/Rome\nto    at 03:00 .*\nin the next year \d+ times are gone, \d+ are new, \d+ stay\n(.*\n)*nothing was changed.*\n",
    "pause": r"paused report: .*\n",
    "explain": r"report: at 02:30 every day, Europe/Rome, paused\n(.*\n)*.* was not planned: the job was added later.*\n(.*\n)*.*`cronactors resume`.*\n",
    "backup": r"backed up \S*agent\.db to backup\.db: 2 jobs and \d+ runs?, .*\n",
    "doctor": r"(OK .*\n)+",
}
"""What each command prints."""


def lines() -> list[str]:
    """Return the commands of the README."""
    (block,) = re.findall(r"<!-- from-a-shell -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(stat.S_IRWXU)


@pytest.mark.slow
def test_the_commands_of_the_readme(start: Callable[..., Command], tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    script(programs, "crontab", f"cat <<'END'\n{CRONTAB}END")
    script(programs, "cronactors", f'exec {shlex.join([sys.executable, *COMMAND[1:]])} "$@"')
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "80",
        "TZ": "UTC",
    }
    environment.pop("CRONACTORS_DB", None)
    done = []
    for line in lines():
        (verb,) = re.findall(r"cronactors (\S+)", line)
        if verb == "run":
            running = start("run")
            running.wait_for("2026|ready|agent.db|database")
            continue
        result = subprocess.run(
            ["/bin/sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 0, (line, result.stdout, result.stderr)
        assert re.fullmatch(READS[verb], result.stdout), (line, result.stdout)
        done.append(verb)
    assert done == list(READS)
    assert "# @reboot echo started" in (tmp_path / "agent.toml").read_text()
