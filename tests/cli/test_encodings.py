"""Every verb prints any stored text in any encoding of standard output."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import trio

from cronactors import Interval, RunStatus, open_store
from tests.cli_command import COMMAND, ROOT

NAME = "Überblick ☃ 🕘"
RESULT = "für 5 €: 🎉"
ENVIRONMENTS = {
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii:strict": {"PYTHONIOENCODING": "ascii:strict"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "utf-16": {"PYTHONIOENCODING": "utf-16"},
    "cp037": {"PYTHONIOENCODING": "cp037"},  # of mainframes: not even ASCII is where it was
    "C": {"LC_ALL": "C"},
    "C, not coerced": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "POSIX, not coerced": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
each_encoding = pytest.mark.parametrize(
    "name", [name if name in ("ascii", "C, not coerced") else pytest.param(name, marks=pytest.mark.slow) for name in ENVIRONMENTS]
)
FILE = f"""
[cron]
database = "jobs.db"
executor = "shell"
[[cron.jobs]]
name = "{NAME}"
prompt = "printf '%s' '{RESULT}'"
every_ms = 60
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("agent.toml", "ägent.toml"):
        (tmp_path / name).write_text(FILE, encoding="utf-8")
    return tmp_path


async def fill(folder: Path) -> None:
    async with open_store(folder / "jobs.db") as store:
        job_id = await store.add_job(NAME, "p", Interval.every(hours=1), user_id="Ω")
        run_id = await store.record_run_start(job_id)
        await store.record_run_complete(run_id, RunStatus.SUCCESS, RESULT)


def encoding_of(name: str) -> str:
    if name == "C":
        return "utf-8"
    return "ascii" if "coerced" in name else name.partition(":")[0]


def output(folder: Path, name: str, *args: str) -> str:
    done = subprocess.run(
        [*COMMAND, *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **ENVIRONMENTS[name]},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (b"Traceback" in done.stderr, done.returncode) == (False, 1 if args[0] == "lint" else 0), done.stderr
    return done.stdout.decode(encoding_of(name))


def file_of(name: str) -> str:
    """Return the name of the file. Without the coercion of PEP 538 Python cannot decode the other one, and we refuse it."""
    return "agent.toml" if "coerced" in name else "ägent.toml"


def visible(text: str, name: str) -> str:
    """Escape characters that the encoding lacks."""
    return text.encode(encoding_of(name), "backslashreplace").decode(encoding_of(name))


@each_encoding
def test_tables_escape_characters_that_the_encoding_lacks(folder: Path, name: str) -> None:
    trio.run(fill, folder)
    jobs = output(folder, name, "list", "--db", "jobs.db").splitlines()
    assert len(jobs) == 3
    assert jobs[1].startswith(visible(NAME, name))
    assert visible("Ω", name) in jobs[1]
    assert jobs[2] == "1 job"
    (heading, run) = output(folder, name, "runs", NAME, "--user", "Ω", "--db", "jobs.db").splitlines()
    assert run.endswith(visible(RESULT, name))
    if name != "utf-8":
        assert heading.index("result") == run.index(visible(RESULT, name)), "the columns are aligned"


@each_encoding
def test_json_stays_json(folder: Path, name: str) -> None:
    trio.run(fill, folder)
    text = output(folder, name, "list", "--json", "--db", "jobs.db")
    (job,) = json.loads(text)
    assert (job["name"], job["user_id"]) == (NAME, "Ω")
    assert (NAME in text) == encoding_of(name).startswith("utf"), "readable where it can be"
    (run,) = json.loads(output(folder, name, "runs", NAME, "--user", "Ω", "--json", "--db", "jobs.db"))
    assert run["result_summary"] == RESULT
    findings = json.loads(output(folder, name, "lint", file_of(name), "--json"))
    assert [(finding["job"], finding["rule"]) for finding in findings] == [(NAME, "short-interval")]
    assert len(json.loads(output(folder, name, "next", "@daily", "--json"))) == 5


@each_encoding
def test_findings_moments_and_help_are_printed(folder: Path, name: str) -> None:
    assert output(folder, name, "lint", file_of(name)).startswith(f"{visible(NAME, name)}: short-interval: ")
    assert len(output(folder, name, "next", "@daily").splitlines()) == 5
    assert "Run scheduled jobs" in output(folder, name, "--help")


@pytest.mark.slow
@each_encoding
def test_run_prints_in_any_encoding(folder: Path, name: str) -> None:
    text = output(folder, name, "run", file_of(name), "--for", "0.7")
    assert "\ufeff" not in text
    assert f"file      {visible(f'{folder}/{file_of(name)}', name)}\n" in text
    assert re.search(rf"{re.escape(visible(NAME, name))} .* success .*{re.escape(visible(RESULT, name))}", text)


@each_encoding
def test_an_error_is_one_line(folder: Path, name: str) -> None:
    for args in (["list", "--db", "nö ☃.db"], ["runs", NAME, "--db", "jobs.db"], ["run", "nö ☃.toml"], ["next", "☃"]):
        done = subprocess.run(
            [*COMMAND, *args],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **ENVIRONMENTS[name]},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, b"")
        text = done.stderr.decode(encoding_of(name))
        assert text.startswith("cronactors: ")
        assert len(text.splitlines()) == 1
