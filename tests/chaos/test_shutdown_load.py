"""Ending a program with a hundred runs in flight, in every way: it ends in time and leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.judge import Ledger, judge, read_database
from tests.chaos.load_child import QUICK, SLOTS
from tests.chaos.sizes import quick_and_full

GRACE = 1.0  # seconds
CHILD = Path(__file__).with_name("load_child.py")
ROOT = CHILD.parents[2]
ENDINGS = {  # the signals, the exceptions that leave the block, and the grace of the runs (s)
    "cancelled": ((), "nothing", 0.0),
    "SIGTERM": ((signal.SIGTERM,), "nothing", GRACE),
    "SIGINT": ((signal.SIGINT,), "KeyboardInterrupt", GRACE),
    "twice SIGINT": ((signal.SIGINT, signal.SIGINT), "KeyboardInterrupt", 0.3),
}


def end_one(folder: Path, ending: str, pause: float) -> tuple[float, str]:
    """Start the program, end it, and check what it left; return how long the end took (s), and the figures of the judge."""
    db, ledger = folder / "a.db", Ledger(folder / "ledger")
    signals, left, grace = ENDINGS[ending]
    options = {"db": str(db), "ledger": str(ledger.file), "ending": ending, "grace": GRACE}
    command = [sys.executable, "-W", "error", "-X", "dev", str(CHILD), json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        time.sleep(pause)
        asked_at = time.monotonic()
        for number, each in enumerate(signals):
            time.sleep(0.3 * number)
            child.send_signal(each)
        output, errors = child.communicate(timeout=60)
    report = json.loads(output)
    took = report["took"] or report["ended_at"] - asked_at
    assert errors == ""
    assert child.returncode == 0
    assert (report["left"], report["behind"], report["in_flight"]) == (left, [], SLOTS)
    assert grace - 0.1 <= took <= grace + 1
    assert sorted(file.name for file in folder.iterdir()) == ["a.db", "ledger"]  # the last connection deletes the -wal
    figures = judge(db, ledger)
    _, rows = read_database(db)
    endings = Counter((row.status, row.cause) for row in rows)
    assert endings == {("success", None): QUICK, ("failed", "interrupted"): SLOTS, ("pending", None): SLOTS}
    return took, figures


@pytest.mark.parametrize("ending", ENDINGS)
@quick_and_full("times", 1, 25)
def test_a_program_with_100_runs_in_flight_ends_in_time_and_leaves_nothing_behind(
    tmp_path: Path, seed: int, figures: Callable[[str], None], ending: str, times: int
) -> None:
    chance = random.Random(seed)
    took: list[float] = []
    judgement = ""
    for number in range(times):
        folder = tmp_path / str(number)
        folder.mkdir()
        each, judgement = end_one(folder, ending, chance.random() * 0.2)
        took.append(each)
    grace = ENDINGS[ending][2]
    figures(
        f"{times} times {ending} with {SLOTS} runs in flight: over at most {max(took) - grace:.2f} s after the grace; {judgement}"
    )
