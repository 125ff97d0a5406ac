"""Executors, notifiers and blocks that fork: the child ends where the code of the user ends, and its parent is not affected."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli_command import ROOT

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"), pytest.mark.slow]

ENDS = {
    "exit": "7",
    "exit with text": "1",
    "raise": "1",
    "group": "7",
    "nursery": "7",
    "interrupt": "130",
    "return": "0",
}


def run(folder: Path, scenario: str) -> tuple[dict[str, object], Counter[str], str]:
    """Run a scenario: the findings of the parent, the notes of both processes, and their standard error."""
    done = subprocess.run(
        # 3.12 and later warn of each fork beside threads
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            str(ROOT / "tests/fork_program.py"),
            scenario,
            folder,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    with closing(sqlite3.connect(folder / "a.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return json.loads(line), Counter((folder / "notes").read_text().splitlines()), done.stderr


def names(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "a.db")) as db:
        return [name for (name,) in db.execute("SELECT name FROM jobs ORDER BY rowid")]


@pytest.mark.parametrize("how", ENDS)
def test_a_child_of_an_executor_ends_as_its_code_does_and_affects_no_other_run(tmp_path: Path, how: str) -> None:
    found, notes, errors = run(tmp_path, f"executor {how}")
    assert found == {"child": ENDS[how], "after": "success", "all": ["success"] * 3}
    assert notes == Counter(["child: forked", "parent: the neighbour ends", "parent: atexit"])
    assert ("ValueError: of the child" in errors) == (how == "raise")
    assert ("my last words" in errors) == (how == "exit with text")
    assert how in ("raise", "exit with text") or errors == ""


def test_a_child_cannot_use_the_store_of_its_parent(tmp_path: Path) -> None:
    found, notes, _ = run(tmp_path, "executor store")
    assert found["child"] == "7"
    (refusal,) = [note for note in notes if "the store belongs to the process that opened it" in note]
    assert notes == Counter(["child: forked", refusal, "parent: the neighbour ends", "parent: atexit"])


@pytest.mark.parametrize("how", ["exit", "raise", "return"])
def test_a_child_of_a_notifier_ends_and_every_finished_run_is_notified(tmp_path: Path, how: str) -> None:
    found, notes, _ = run(tmp_path, f"notifier {how}")
    assert found == {"child": ENDS[how], "all": [ENDS[how]] * 2}
    assert notes == Counter(["child: forked"] * 2 + ["parent: atexit"])


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("what", ["store", "scheduler"])
def test_a_child_that_leaves_a_block_ends_there_and_closes_nothing(tmp_path: Path, what: str, how: str) -> None:
    found, notes, errors = run(tmp_path, f"{what} {how}")
    assert found == {"child": ENDS[how]}
    runs = ["parent: the run ends"] if what == "scheduler" else []
    assert notes == Counter(["child: forked", "parent: the parent leaves", *runs, "parent: atexit"])
    assert names(tmp_path) == (["job"] if what == "scheduler" else ["before", "after"])
    assert ("ValueError: of the child" in errors) == (how == "raise")


def test_a_child_of_a_task_outside_a_block_ends_where_the_block_is_cancelled(tmp_path: Path) -> None:
    found, notes, errors = run(tmp_path, "outside_block exit")
    assert found == {"child": "1"}
    assert "a forked child was cancelled in a block of its parent" in errors
    assert notes == Counter(["child: forked", "parent: the parent leaves", "parent: atexit"])
    assert names(tmp_path) == ["before", "after"]


@pytest.mark.parametrize("how", ["exit", "raise", "return"])
def test_a_child_of_another_thread_ends_its_interpreter_in_order_and_leaves_the_file_alone(tmp_path: Path, how: str) -> None:
    found, notes, _ = run(tmp_path, f"outside {how}")
    assert found == {"child": ENDS[how]}
    assert notes == Counter(["child: forked", "child: atexit", "parent: the parent leaves", "parent: atexit"])
    assert names(tmp_path) == ["before", "after"]


def test_executors_use_pools_of_forked_processes(tmp_path: Path) -> None:
    found, notes, errors = run(tmp_path, "pool")
    assert found == {"child": "0", "all": [str(sum(number * number for number in range(100)))] * 3}
    assert (notes, errors) == (Counter(["parent: atexit"]), "")


PREFORK = """
import os
import sys
import trio
from cronactors import Interval, open_store

block = open_store("jobs.db")  # as a server makes its application, before it forks its workers


async def work() -> None:
    async with block as store:
        await store.add_job("job", "it", Interval(1000))
    print("left the block", flush=True)


if worker := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
trio.run(work)
print("the end")
"""


def test_a_block_that_is_made_before_a_fork_works_in_the_child(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREFORK],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left the block\nthe end\n", "")
