"""The judge of many schedulers on PostgreSQL: it accepts a correct store and ledger, and sees every error."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import psycopg
import pytest
import trio

from cronactors import Cron, CronConfig, JobSpec, OneShot, SessionMode, now, open_scheduler
from tests.chaos.child import carry_out
from tests.chaos.judge import Ledger, judge
from tests.chaos.postgres_judge import Span, judge_crons, judge_interruptions, judge_shared, spans
from tests.chaos.postgres_scenario import longest_gap
from tests.postgres_server import new_database, shared_server

SLOTS = 3
CRON = "* * * * * *"


class World:
    """A store and a ledger: runs of a cron job, and one-shots, two of them in one session."""

    def __init__(self, folder: Path) -> None:
        self.db = new_database(shared_server())
        self.ledger = Ledger(folder / "ledger")

    async def live(self) -> None:
        due = OneShot(now())
        jobs = [JobSpec("cron", "sleep 0.01", Cron(CRON)), *(JobSpec(f"shot {number}", "sleep 0.1", due) for number in range(3))]
        jobs += [JobSpec(f"session {number}", "sleep 0.05", due, session_mode=SessionMode.MAIN) for number in range(2)]
        config = CronConfig(max_concurrent_runs=SLOTS)
        async with open_scheduler(self.db, partial(carry_out, self.ledger), jobs=jobs, config=config):
            with trio.fail_after(30):
                while len(self.ledger.read()) < 2 * (len(jobs) + 1):
                    await trio.sleep(0.02)

    def judge(self) -> tuple[int, int]:
        entries = self.ledger.read()
        judge(self.db, self.ledger)
        judge_interruptions(self.db, entries, hit=())
        judge_crons(self.db, {CRON: 1000})
        return judge_shared(spans(self.db, entries), slots=SLOTS, total=SLOTS)

    def change(self, statement: str) -> None:
        with psycopg.connect(self.db) as connection:
            connection.execute("SET search_path TO cronactors")
            assert connection.execute(statement.encode()).rowcount == 1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    trio.run(made.live)
    return made


SHOT = "UPDATE runs SET {} WHERE job_name = 'shot 0'"
CRON_RUN = "UPDATE runs SET coalesced = coalesced {} 1 WHERE id = (SELECT min(id) FROM runs WHERE job_name = 'cron')"
INTERRUPT = SHOT.format("status = 'failed', cause = 'interrupted'")
RESTORE = SHOT.format("status = 'success', cause = NULL")
ERRORS = {
    "a run is missing": (SHOT.format("id = -id"), SHOT.format("id = -id"), "not in the file"),
    "a moment is there twice": (CRON_RUN.format("+"), CRON_RUN.format("-"), "moments are in the history"),
    "a process that was well was interrupted": (INTERRUPT, RESTORE, "their processes were well"),
    "a result is missing": (SHOT.format("status = 'running'"), RESTORE, "still running"),
}


@pytest.mark.slow
def test_a_correct_store_passes_and_errors_are_seen(world: World):
    assert world.judge() == (SLOTS, SLOTS)
    for error, undo, message in ERRORS.values():
        world.change(error)
        with pytest.raises(AssertionError, match=message):
            world.judge()
        world.change(undo)
    assert world.judge() == (SLOTS, SLOTS)


@pytest.mark.slow
def test_the_interruption_of_a_process_that_was_hit_is_right_and_its_run_counts_until_its_last_line(world: World):
    entries = world.ledger.read()
    (start, end) = (entry for entry in entries if entry.job == shot(world))
    before = next(span for span in spans(world.db, entries) if span.run == start.run)
    world.change(SHOT.format(f"status = 'failed', cause = 'interrupted', completed_at = {round(start.wall * 1000) + 1}"))
    try:
        judge_interruptions(world.db, entries, hit=[start.pid])
        after = next(span for span in spans(world.db, entries) if span.run == start.run)
    finally:
        world.change(SHOT.format(f"status = 'success', cause = NULL, completed_at = {round(end.wall * 1000)}"))
    assert (before.first, entries[before.last]) == (after.first, end)
    assert after.last < before.last


def shot(world: World) -> str:
    with psycopg.connect(world.db) as connection:
        row = connection.execute("SELECT id FROM cronactors.jobs WHERE name = 'shot 0'").fetchone()
    assert row is not None
    return str(row[0])


def span(run: int, first: int, last: int, *, pid: int = 1, session: str | None = None) -> Span:
    return Span(run, pid, session, first, last)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([span(1, 0, 2, session="s"), span(2, 1, 3, pid=2, session="s")], "began beside"),
        ([span(run, run, 9, pid=run) for run in range(4)], "4 runs at a time"),
        ([span(run, run, 9) for run in range(3)], "3 runs at a time in one scheduler"),
    ],
    ids=["session", "total", "slots"],
)
def test_an_exceeded_limit_is_seen(found: list[Span], message: str):
    with pytest.raises(AssertionError, match=message):
        judge_shared(found, slots=2, total=3)


def test_limits_that_are_reached_are_kept():
    found = [span(1, 0, 1, session="s"), span(2, 2, 9, session="s"), span(3, 3, 8), span(4, 4, 7, pid=2)]
    assert judge_shared(found, slots=2, total=3) == (2, 3)


@pytest.mark.parametrize(
    ("moments", "expected"),
    [([], 10), ([12, 13], 7), ([19], 9), ([5, 11, 15, 19, 30], 4)],
    ids=["none", "first", "last", "inside"],
)
def test_the_longest_gap_counts_from_the_beginning_to_the_end(moments: list[float], expected: float):
    assert longest_gap(moments, (10, 20)) == expected
