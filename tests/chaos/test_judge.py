"""The judge itself: it accepts a correct file, and sees every error."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from cronactors import Interval, JobContext, OneShot, open_scheduler
from tests.chaos.fault_scenario import START, clock_at
from tests.chaos.judge import Ledger, judge, judge_interrupted


class World:
    """A file and a ledger of some minutes: an overlapping interval, one that fails, and a one-shot that is interrupted."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "agent.db"
        self.ledger = Ledger(folder / "ledger")
        self.ids: dict[str, str] = {}

    async def execute(self, ctx: JobContext) -> None:
        self.ledger.write("start", ctx)
        await trio.sleep(float(ctx.prompt))
        self.ledger.write("raise" if ctx.job_name == "fails" else "end", ctx)
        if ctx.job_name == "fails":
            raise ValueError("as requested")

    async def live(self) -> None:
        async with open_scheduler(self.db, self.execute, shutdown_grace=0) as scheduler:
            add = scheduler.store.add_job
            self.ids["slow"] = await add("slow", "25", Interval.every(seconds=10))
            self.ids["fails"] = await add("fails", "1", Interval.every(seconds=60), max_retries=1)
            self.ids["cut off"] = await add("cut off", "900", OneShot(START + timedelta(seconds=100)))
            await trio.sleep(301)

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self.db, isolation_level=None)) as connection:
            assert connection.execute(statement).rowcount == 1

    def write(self, change: Callable[[list[str]], list[str]]) -> None:
        lines = self.ledger.file.read_text().splitlines()
        self.ledger.file.write_text("".join(f"{line}\n" for line in change(lines)))


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    trio.run(made.live, clock=clock_at(START))
    return made


def test_a_correct_file_and_ledger_pass(world: World):
    figures = judge(world.db, world.ledger, acknowledged=world.ids.values())
    assert "interrupted" in figures
    assert judge_interrupted(world.db) == 1


ONE = "id = (SELECT id FROM runs WHERE {} LIMIT 1)"
SLOW = ONE.format("job_name = 'slow' AND status = 'success'")
IN_FILE = {
    "an acknowledged job": ("DELETE FROM jobs WHERE name = 'cut off'", "acknowledged jobs are missing"),
    "a job's next moment": ("UPDATE jobs SET next_run_at = NULL WHERE name = 'fails'", "silent jobs"),
    "a result": (f"UPDATE runs SET status = 'failed', cause = 'error' WHERE {SLOW}", "end became"),
    "a result that was replaced": (
        f"UPDATE runs SET status = 'cancelled', cause = 'replaced', error = 'cancelled for the next moment' WHERE {SLOW}",
        "end became",
    ),
    "a failure": ("UPDATE runs SET status = 'success' WHERE " + ONE.format("cause = 'error'"), "raise became|without an end"),
    "a success without an end": (
        "UPDATE runs SET status = 'success' WHERE " + ONE.format("cause = 'interrupted' AND job_name = 'cut off'"),
        "without an end",
    ),
    "a run": (f"DELETE FROM runs WHERE {SLOW}", "not in the file"),
    "what was skipped": ("DELETE FROM runs WHERE " + ONE.format("status = 'skipped'"), "moments are in the history"),
    "a merged moment": (
        "UPDATE runs SET coalesced = coalesced - 1 WHERE " + ONE.format("status = 'skipped'"),
        "moments are in the history",
    ),
    "a moment twice": (f"UPDATE runs SET coalesced = coalesced + 1 WHERE {SLOW}", "moments are in the history"),
    "a run that goes on": (f"UPDATE runs SET status = 'running' WHERE {SLOW}", "still running"),
}


@pytest.mark.parametrize("kind", IN_FILE)
def test_an_error_in_the_file_is_seen(kind: str, world: World):
    statement, message = IN_FILE[kind]
    world.change(statement)
    with pytest.raises(AssertionError, match=message):
        judge(world.db, world.ledger, acknowledged=world.ids.values())


def test_an_outcome_that_was_not_stored_because_the_process_died_is_no_error(world: World):
    """The run was to be replaced, so the next start cancelled it and did not retry it."""
    died = "status = 'cancelled', cause = 'replaced', error = 'interrupted: its process ended'"
    world.change(f"UPDATE runs SET {died} WHERE {SLOW}")
    judge(world.db, world.ledger, acknowledged=world.ids.values())


def test_an_interrupted_run_without_a_retry_is_seen(world: World):
    world.change("DELETE FROM runs WHERE job_name = 'cut off' AND status = 'pending'")
    with pytest.raises(AssertionError, match="1 interrupted runs were not retried"):
        judge_interrupted(world.db)


def started_early(lines: list[str]) -> list[str]:
    """Let the second run of the slow job start before the first ends."""
    slow = [place for place, line in enumerate(lines) if json.loads(line)[1] == json.loads(lines[0])[1]]
    first, second = slow[1:3]
    return [*lines[:first], lines[second], *lines[first:second], *lines[second + 1 :]]


IN_LEDGER = {
    "started twice": (lambda lines: [*lines, lines[0]], "started twice"),
    "beside another": (started_early, "began beside"),
}


@pytest.mark.parametrize("kind", IN_LEDGER)
def test_an_error_in_the_ledger_is_seen(kind: str, world: World):
    change, message = IN_LEDGER[kind]
    world.write(change)
    with pytest.raises(AssertionError, match=message):
        judge(world.db, world.ledger)
