"""The examples run unchanged, end by themselves, and print the results that they describe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(name: str, *args: str, cwd: Path) -> str:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_embedding_runs_twice_on_one_file(tmp_path):
    for count in (1, 2):
        output = run("embedding.py", "--seconds", "2", cwd=tmp_path)
        assert re.search(r"^morning-check +attempt 1 +success +done: Summarize overnight alerts$", output, re.MULTILINE)
        assert re.search(r"^pulse +attempt 1 +success +42 waiting$", output, re.MULTILINE)
        assert re.search(r"^flaky +attempt 1 +failed +Retry: the network is down$", output, re.MULTILINE)
        assert re.search(r"^flaky +attempt 2 +success +done: Fetch the news$", output, re.MULTILINE)
        assert len(re.findall(r"^\S+ +next ", output, re.MULTILINE)) == 3  # the second start adds no job
        assert len(re.findall(r"^history: morning-check .* manual success$", output, re.MULTILINE)) == count


IN_ORDER = ["clock", "runner", "runner", "receivers", "store"]


def test_supervision_ends_the_actors_in_order(tmp_path):
    parts = re.split(r"^(\S.*):$", run("supervision.py", cwd=tmp_path), flags=re.MULTILINE)
    output = dict(zip(parts[1::2], parts[2::2], strict=True))
    ends = {name: re.findall(r"the (\w+) actor has ended", text) for name, text in output.items()}
    left = {name: re.findall(r"left: (.*)", text) for name, text in output.items()}

    for actors in ends.values():
        if actors.index("patrol") < actors.index("runner"):  # the clock and the patrol share a nursery, and end in any order
            actors.remove("patrol")
        assert sorted(set(actors) - {"patrol"}) == sorted(set(IN_ORDER))
        assert len(actors) - actors.count("patrol") == len(IN_ORDER)  # no actor is left behind
    for name in (
        "the body returns",
        "the body raises",
        "an executor fails",
        "an executor ends the program",
        "the clock has a bug",
    ):
        assert ends[name] == IN_ORDER, name
    assert ends["the body is cancelled"][-1] == "store"
    assert ends["the store has a bug"][0] == "store"

    assert "notified: work ok: worked" in output["the body returns"]
    assert "the executor is cancelled" not in output["the body returns"]
    assert left["the body returns"] == []
    assert left["the body raises"] == ["LookupError('the body has failed')"]
    assert left["the body is cancelled"] == ["by the cancellation"]
    assert "notified: fail FAILED: ValueError: the executor has failed" in output["an executor fails"]
    assert "notified: work ok: worked" in output["an executor fails"]
    assert left["an executor ends the program"] == ["SystemExit(3)"]
    for name in ("the clock has a bug", "the store has a bug"):
        assert "the executor is cancelled" in output[name]
        assert left[name][0].startswith("SchedulerCrashed(")
    assert left["the clock has a bug"][0].endswith("because of ZeroDivisionError('a bug in a claim')")
    assert "the caller gets: SchedulerCrashed(" in output["the store has a bug"]
