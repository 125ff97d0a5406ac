"""kill -9 at any moment: acknowledged jobs are in the file, interrupted runs are retried, and nothing runs twice."""

from __future__ import annotations

import random
import signal
import sqlite3
import statistics
import time
from collections import Counter
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from cronactors import (
    CronConfig,
    JobSpec,
    Misfire,
    OneShot,
    Overlap,
    SessionMode,
    now,
    open_scheduler,
    open_store,
)
from cronactors.schedules.schedule import Cron, Interval
from tests.chaos.child import RETRY, Life, Lives, Options, carry_out, open_lives, receivers_of
from tests.chaos.judge import Ledger, judge, judge_interrupted, read_database
from tests.chaos.notified import Calls, judge_notifications
from tests.chaos.sizes import quick_and_full

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of POSIX")

JOBS = 200
SLOTS = 8
ADDS = 50  # a second
FEW = 2
UNDELIVERED = "SELECT count(*) FROM notifications WHERE status = 'pending' AND attempts = 0 AND created_at < strftime('%s', 'now') * 1000 - 1000"
JUDGED_EACH = 50  # kills: the judge reads the whole history


@pytest.fixture
def options(tmp_path):
    files = {name: str(tmp_path / name) for name in ("ledger", "acks", "calls")}
    return Options(db=str(tmp_path / "agent.db"), slots=SLOTS, **files)


def jobs_of_all_kinds(chance: random.Random, spread: float) -> list[JobSpec]:
    """Return all kinds of schedules, overlaps, sessions, misfires and outcomes. One-shots are within ``spread`` s."""
    specs = []
    for number in range(JOBS):
        schedule = chance.choice(
            [
                Interval(chance.choice([200, 700, 2000, 5000])),
                Cron("* * * * * *"),
                Cron("*/3 * * * * *"),
                OneShot(now() + timedelta(seconds=chance.uniform(0, spread))),
            ]
        )
        prompt = chance.choice(["sleep 0", "sleep 0.005", "sleep 0.02", "sleep 0.2", "fail 0.005", "give-up 0", "sleep 60"])
        options: dict[str, Any] = {
            "max_retries": FEW if prompt.startswith("fail") or prompt == "sleep 60" else 1000,
            "timeout_secs": 0.05 if prompt == "sleep 60" else 30,
            "overlap": chance.choice(list(Overlap)),
            "session_mode": chance.choice([SessionMode.ISOLATED, SessionMode.ISOLATED, SessionMode.MAIN]),
            "user_id": chance.choice([None, "ann", "bob"]),
            "misfire": chance.choice([Misfire(), Misfire(coalesce="all", max_runs=3), Misfire(window=timedelta(seconds=1))]),
            "delete_after_run": isinstance(schedule, OneShot) and chance.random() < 0.5,
        }
        specs.append(JobSpec(f"job {number}", prompt, schedule, **options))
    return specs


def read(db: str, statement: str) -> list[Any]:
    with closing(sqlite3.connect(f"{Path(db).as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def running_rows(db: str) -> set[int]:
    return {run_id for (run_id,) in read(db, "SELECT id FROM runs WHERE status = 'running'")}


def added(options: Options) -> list[str]:
    """Return the jobs whose adding was acknowledged; a kill may have cut the last line of a life."""
    file = Path(options.acks)
    return [line for line in file.read_text().splitlines() if line] if file.exists() else []


class Killing:
    """Lives that are killed, and figures about them."""

    def __init__(self, lives: Lives, options: Options, chance: random.Random) -> None:
        self.lives = lives
        self.options = options
        self.chance = chance
        self.kills: Counter[str] = Counter()
        self.left: set[int] = set()
        self.starts: list[float] = [0.02]

    async def kill_one(self) -> None:
        """Kill a life after a random time; once it is ready, runs that the life before left open must be finished."""
        when = self.chance.choice(["start", "start", "work", "work", "work", "recovery"])
        began = time.monotonic()
        dies = self.chance.randint(1, 4) if when == "recovery" else 0
        life = await self.lives.begin(die_in_recovery=dies, adds=ADDS)
        if when == "start":
            await trio.sleep(self.chance.uniform(0, statistics.median(self.starts[-20:])))
        else:
            with trio.move_on_after(10):
                await self._ready_or_gone(life)
            if life.recovered is not None:
                self.starts.append(time.monotonic() - began)
                open_rows = running_rows(self.options.db)
                assert not self.left & open_rows, "still running although its process is dead and a new one is up"
                await trio.sleep(self.chance.expovariate(1 / 0.12))  # real time: the kill is to hit at a random point
        await life.kill()
        self.kills["work" if life.recovered is not None else "recovery" if when == "recovery" else "start"] += 1
        self.left = running_rows(self.options.db)

    async def _ready_or_gone(self, life: Life) -> None:
        async with trio.open_nursery() as nursery:

            async def wait_for(heard: Any) -> None:
                await heard()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for, life.ready)
            nursery.start_soon(wait_for, life.gone)


async def run_undisturbed(options: Options) -> None:
    """Run a scheduler without kills until all one-shots are done and all notifications delivered, and stop it in order."""
    ledger = Ledger(options.ledger)

    async def executor(ctx: Any) -> str:
        return await carry_out(ledger, ctx)

    config = CronConfig(max_concurrent_runs=SLOTS, retry=RETRY)
    pending = "SELECT count(*) FROM jobs JOIN job_specs USING (number) WHERE enabled = 1 AND schedule LIKE '%one_shot%'"
    async with open_scheduler(options.db, executor, config=config, tick_interval=0.05, **receivers_of(options)):
        with trio.fail_after(120):
            while read(options.db, pending) != [(0,)] or read(options.db, UNDELIVERED) != [(0,)]:
                await trio.sleep(0.1)


@quick_and_full("kills", 40, 1000)
async def test_killed_at_random_moments_nothing_is_lost_and_nothing_runs_twice(kills, seed, figures, options):
    chance = random.Random(seed)
    ledger = Ledger(options.ledger)
    began = time.monotonic()
    async with open_store(options.db) as store:
        specs = jobs_of_all_kinds(chance, kills / 6)
        ids = await store.add_jobs(specs)
    may_go = {job_id for job_id, spec in zip(ids, specs, strict=True) if spec.delete_after_run}
    async with open_lives(options, timeout=10 + 20 * kills) as lives:
        killing = Killing(lives, options, chance)
        for number in range(1, kills + 1):
            await killing.kill_one()
            if number % JUDGED_EACH == 0:
                judge(options.db, ledger, acknowledged=[*ids, *added(options)], gone=may_go, idle=False)
    await run_undisturbed(options)
    acknowledged = added(options)
    judgement = judge(options.db, ledger, acknowledged=[*ids, *acknowledged], gone=may_go)
    judgement += f"; {judge_notifications(options.db, Calls(options.calls))}"
    # With few retries, or a window shorter than its backoff, a job may be hit often enough to be stopped; its error says so.
    stopped = {job for (job,) in read(options.db, "SELECT id FROM jobs WHERE enabled = 0 AND last_error LIKE '%times in a row%'")}
    may_stop = {
        job_id for job_id, spec in zip(ids, specs, strict=True) if spec.max_retries == FEW or spec.misfire.window is not None
    }
    assert stopped <= may_stop
    interrupted = judge_interrupted(options.db, but=stopped)
    done = {row.job for row in read_database(options.db)[1] if row.status == "success"}
    undone = set(acknowledged) - done
    assert not undone, f"{len(undone)} acknowledged one-shots never finished"
    assert interrupted >= kills / 4, "too few kills hit a run: the test proves nothing"
    assert min(killing.kills[when] for when in ("start", "work", "recovery")) >= kills / 40
    where = ", ".join(f"{count} in {when}" for when, count in sorted(killing.kills.items()))
    figures(
        f"{kills} kills ({where}), {len(acknowledged)} jobs acknowledged meanwhile; {judgement}; {time.monotonic() - began:.0f} s"
    )


@quick_and_full("killers", 1, 2)
async def test_jobs_that_kill_their_process_are_delayed_and_disabled_and_neighbours_lose_nothing(killers, figures, options):
    budget, seconds = 2, 2.0
    # Each crash would hit a long run; with one killer a run need not even have a retry.
    spare = 0 if killers == 1 else 2
    async with open_store(options.db) as store:
        moment = OneShot(now())
        bad = [await store.add_job(f"killer {n}", "die 0.05", Interval(300), max_retries=budget) for n in range(killers)]
        long = [await store.add_job(f"long {n}", f"sleep {seconds}", moment, max_retries=spare) for n in range(2)]
        short = [await store.add_job(f"short {n}", "sleep 0.005", Interval(100), max_retries=0) for n in range(4)]
        short.append(await store.add_job("overlaps", "sleep 0.25", Interval(100), max_retries=0))
    ledger, deaths = Ledger(options.ledger), 0
    active = "SELECT count(*) FROM jobs WHERE enabled = 1 AND name LIKE 'killer%'"
    async with open_lives(options, timeout=120) as lives:
        while True:
            life = await lives.begin()
            while life.status is None and read(options.db, active) != [(0,)]:
                await trio.sleep(0.02)
            if life.status is None:
                break
            assert life.status == -signal.SIGKILL
            deaths += 1
            assert deaths < 40
        life.send(signal.SIGINT)
        assert await life.gone() == 0
    await run_undisturbed(options)
    judgement = judge(options.db, ledger, acknowledged=[*bad, *long, *short])
    judge_interrupted(options.db, but=bad)
    entries = ledger.read()
    for job in bad:
        starts = [entry.wall for entry in entries if (entry.job, entry.what) == (job, "start")]
        assert len(starts) == 2 + 1 + budget
        assert all(later - earlier >= RETRY.delays[0] for earlier, later in pairwise(starts[2:]))
        ((enabled, error),) = read(options.db, f"SELECT enabled, last_error FROM jobs WHERE id = '{job}'")
        assert enabled == 0
        assert f"{2 + 1 + budget} times in a row" in error
    for job in [*long, *short]:
        ((enabled, error),) = read(options.db, f"SELECT enabled, last_error FROM jobs WHERE id = '{job}'")
        assert enabled == (job in short)
        assert "times in a row" not in (error or "")
    for job in long:
        assert sum((entry.job, entry.what) == (job, "end") for entry in entries) == 1
    if killers == 1:
        assert read(options.db, f"SELECT max(failures) FROM runs WHERE job_id NOT IN ('{bad[0]}')") == [(0,)]
    figures(f"{killers} killers, {deaths} deaths until they were stopped; {judgement}")


async def test_a_run_that_another_process_finished_between_two_inspections_is_not_retried(options, caplog):
    async with open_store(options.db) as store:
        job = await store.add_job("job", "sleep 0", OneShot(now()))
    async with open_scheduler(options.db, partial(carry_out, Ledger(options.ledger))) as scheduler:
        await scheduler.wait_idle()
        (run,) = await scheduler.store.list_runs(job)
        for _ in range(2):
            await scheduler._actors.patrol._put_back([int(run.id)])
        assert await scheduler.store.list_runs(job) == [run]
    assert "never started" not in caplog.text
