"""Every verb works without rich, which only draws tables; output in JSON never imports it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import cronactors
from cronactors import Interval, JobSpec, RunStatus, open_store
from cronactors.cli import tables
from cronactors.cli.tables import Cell, print_table
from tests.cli_command import FILE, QUICK, ROOT

WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from cronactors.cli import main; main()"
WITH_RICH = "import rich; from cronactors.cli import main; main()"
REPORT_IMPORTS = "import sys, atexit; atexit.register(lambda: print('rich' in sys.modules, file=sys.stderr)); "
NAME = "Überblick 日本"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agent.toml").write_text(FILE + QUICK, encoding="utf-8")
    trio.run(fill, tmp_path)
    return tmp_path


async def fill(folder: Path) -> None:
    async with open_store(folder / "jobs.db") as store:
        job_id = await store.add_job(NAME, "p", Interval.every(hours=1))
        for status, result in ((RunStatus.FAILED, "it broke"), (RunStatus.SUCCESS, "fine\nand more")):
            await store.record_run_complete(await store.record_run_start(job_id), status, result)
        await store.upsert_jobs([JobSpec("listed", "p", Interval.every(hours=2))], origin="old")


def call(folder: Path, code: str, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-W", "error", "-c", code, *args]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False)


@pytest.mark.parametrize(
    ("args", "pattern"),
    [
        (["--version"], rf"\Acronactors {cronactors.__version__}$"),
        (["run", "--for", "0", "--db", "new.db"], r"^ended: \d runs?"),
        (["list"], rf"^{NAME} +every 1 h .*\n.*\n2 jobs\Z"),
        (["runs", NAME], r" success .* fine\n(.*\n)?.* failed/error .* it broke\Z"),
        (["next", "@daily"], r"\A\w{3} \d{4}-\d\d-\d\d 00:00:00 "),
        (["lint", "@daily"], r"\Ano findings\Z"),
        (["remove", "--origin", "old", "--yes"], r"\Aremoved 1 job of old\Z"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_verb_works_without_rich(folder: Path, args: list[str], pattern: str) -> None:
    done = call(folder, WITHOUT_RICH, *args)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(pattern, done.stdout.strip(), re.MULTILINE), done.stdout


@pytest.mark.parametrize("args", [["list"], ["runs", NAME]])
def test_the_plain_table_holds_what_the_table_of_rich_holds(folder: Path, args: list[str]) -> None:
    plain, rich = (call(folder, code, *args).stdout for code in (WITHOUT_RICH, WITH_RICH))
    assert NAME in plain or "it broke" in plain
    assert plain.splitlines() == [line.rstrip() for line in rich.splitlines()]


@pytest.mark.parametrize("args", [["list"], ["runs", NAME], ["next", "@daily"], ["lint", "@daily"]])
def test_json_never_imports_rich(folder: Path, args: list[str]) -> None:
    done = call(folder, REPORT_IMPORTS + "from cronactors.cli import main; main()", *args, "--json")
    assert (done.returncode, done.stderr) == (0, "False\n")
    json.loads(done.stdout)


def test_columns_of_the_plain_table_are_aligned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    rows = [[Cell("日本"), Cell("a")], [Cell("e\u0301"), Cell("b", "red")], [Cell("plain"), Cell("")]]
    print_table(["name", "x"], rows)
    assert capsys.readouterr().out == "name   x\n日本   a\ne\u0301      b\nplain\n"
    assert tables.text_width("日本e\u0301") == 5


def test_a_table_without_rows_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name"], [])
    assert capsys.readouterr().out == ""
