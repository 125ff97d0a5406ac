"""The command without a scheduler: usage, errors, and finding the database."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest

import cronactors
from cronactors import cli
from cronactors.cli.database import find_database
from tests.cli_command import ROOT, start

__all__ = ["start"]


def test_version_imports_nothing_heavy():
    code = "import sys; sys.argv[1:] = ['--version']; from cronactors.cli import main; main()"
    code += "; assert not {'click', 'rich', 'sqlite_utils', 'asyncio'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == f"cronactors {cronactors.__version__}\n"


@pytest.mark.parametrize(
    ("args", "thresholds"), [(["list"], [50_000]), (["runs", "x", "--follow"], []), (["run"], []), (["watch"], [])]
)
def test_only_a_command_that_ends_soon_collects_garbage_less_often(
    monkeypatch: pytest.MonkeyPatch, args: list[str], thresholds: list[int]
) -> None:
    found: list[int] = []
    for name in ("_open_standard_streams", "note_hang_ups", "fork_as_container_init"):
        monkeypatch.setattr(cli, name, lambda: None)
    monkeypatch.setattr(cli.gc, "freeze", lambda: None)
    monkeypatch.setattr(cli.gc, "set_threshold", found.append)
    monkeypatch.setattr(sys, "argv", ["cronactors", *args, "--help"])
    with pytest.raises(SystemExit, match="^0$"):
        cli.main()
    assert found == thresholds


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["run", "absent.toml"], 1, "cronactors: .*absent.toml: cannot be read: No such file or directory"),
        (["run", "--for", "x"], 2, "Error: Invalid value for '--for': 'x' is not a number"),
        (["run", "--for", "nan"], 2, "Error: Invalid value for '--for': SECONDS must be"),
        (["run", "--for", "-1"], 2, "Error: Invalid value for '--for': SECONDS must be"),
        (["nonsense"], 2, "Error: No such command 'nonsense'"),
        (["runs"], 2, "Error: no database: give --db or --config"),
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
def test_a_wrong_executor(start, tmp_path, executor, message):
    (tmp_path / "agent.toml").write_text("[cron]")
    code, text = start("run", *(["--executor", executor] if executor else [])).end()
    assert (code, text.startswith(f"cronactors: {message}")) == (1, True)
    assert not (tmp_path / "agent.db").exists()


def test_the_database_is_found_in_order(tmp_path, monkeypatch):
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
