"""The examples run unchanged, end by themselves, and print the results that they describe."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from cronactors import CronRun, RunStatus, open_store
from tests.store_places import place, server

__all__ = ["place", "server"]

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def run(name: str, *args: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *args],
        cwd=cwd,
        env=environment(),
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


async def wait_for(store: str, holds: Callable[[list[CronRun]], object]) -> list[CronRun]:
    """Wait until something holds for the successful runs, and return the runs that have started."""
    with trio.fail_after(30):
        async with open_store(store) as opened:
            while True:
                runs = [run for run in await opened.list_runs(limit=1_000) if run.started_at is not None]
                if holds([run for run in runs if run.status is RunStatus.SUCCESS]):
                    return runs
                await trio.sleep(0.1)


def test_copies_of_many_machines_share_the_moments_on_a_file_and_on_a_server(place, tmp_path):
    command = [sys.executable, "-W", "error", str(ROOT / "examples/many_machines.py")]
    env, pipe = {**environment(), "CRONACTORS_DB": place}, subprocess.PIPE
    first, second = (subprocess.Popen(command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True) for _ in range(2))
    try:
        before = trio.run(wait_for, place, lambda runs: len({run.result_summary for run in runs}) == 2 and len(runs) >= 6)
        first.send_signal(signal.SIGTERM)
        outputs = [first.communicate(timeout=20)]
        trio.run(wait_for, place, lambda runs: len(runs) >= len(before) + 4)
        second.send_signal(signal.SIGINT)
        outputs.append(second.communicate(timeout=20))
        runs = trio.run(wait_for, place, len)
    finally:
        for copy in (first, second):
            copy.kill()
            copy.wait()
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert [errors for _, errors in outputs] == ["", ""]

    started = [re.findall(r"run +(\d+) .* started$", output, re.MULTILINE) for output, _ in outputs]
    assert all(started), "both copies have executed runs"
    assert sorted(started[0] + started[1], key=int) == sorted((run.id for run in runs), key=int)
    assert {run.status for run in runs} == {RunStatus.SUCCESS}
    moments = [(run.job_name, run.scheduled_at) for run in runs]
    assert len(moments) == len({*moments})
    of_ada = sorted((run.started_at, run.completed_at) for run in runs if run.user_id == "ada" and run.completed_at)
    # On a server a transaction reads the clock before it takes its locks, so times may overlap by how long it waits for them.
    inexact = timedelta(seconds=0.15)
    assert all(ended <= begun + inexact for (_, ended), (begun, _) in pairwise(of_ada)), "one run at a time, of 0.2 s each"
    for output, _ in outputs:
        assert re.search(r"^\S+  opened \S+$", output, re.MULTILINE)
        assert re.search(r"^\S+  of the last \d+ runs \S+ has executed \d+$", output, re.MULTILINE)
