"""Kill real processes at every step: the next start finds, marks and runs again what was running; no run is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from cronactors import (
    Cause,
    CronConfig,
    CronRun,
    CronScheduler,
    CronStore,
    JobSpec,
    OneShot,
    RunClosed,
    RunStatus,
    Trigger,
    open_scheduler,
    open_store,
)
from cronactors.ledger import leases
from cronactors.schedules.schedule import Interval
from tests.crash_child import RETRY, make_executor

ROOT = Path(__file__).parents[1]
TIMEOUT = 40  # (s), many times as long as any of these tests takes
SEED = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(10**9))

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of POSIX")

SUCCESS = (RunStatus.SUCCESS, None)
INTERRUPTED = (RunStatus.FAILED, Cause.INTERRUPTED)


class World:
    """A database, and the file to which executors write their steps."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "agent.db"
        self.file = folder / "steps.txt"

    def steps_by_process(self) -> list[tuple[str, str, int, int]]:
        """Return each step with its job, attempt and process id."""
        if not self.file.exists():
            return []
        words = map(str.split, self.file.read_text().splitlines())
        return [(step, name, int(attempt), int(pid)) for step, name, attempt, pid in words]

    def steps(self) -> list[tuple[str, str, int]]:
        """Return each step with its job and attempt."""
        return [line[:3] for line in self.steps_by_process()]

    async def add(self, *jobs: tuple[str, str], **options: Any) -> list[str]:
        """Add jobs, name and prompt, that are due now in their order."""
        now = datetime.now(UTC)
        moments = [now - timedelta(milliseconds=len(jobs) - number) for number in range(len(jobs))]
        async with open_store(self.db) as store:
            return await store.add_jobs(
                [JobSpec(*job, OneShot(moment), **options) for job, moment in zip(jobs, moments, strict=True)]
            )

    @asynccontextmanager
    async def scheduler(self, slots: int = 1) -> AsyncIterator[CronScheduler]:
        """Open a scheduler in this process, which no test kills."""
        config = CronConfig(max_concurrent_runs=slots, retry=RETRY)
        with trio.fail_after(TIMEOUT):
            async with open_scheduler(self.db, make_executor(self.file), config=config, tick_interval=0.05) as scheduler:
                yield scheduler

    @asynccontextmanager
    async def child(self, **options: Any) -> AsyncIterator[Child]:
        """Start a scheduler in a process of its own, and kill it at the end of the block if the test did not."""
        arguments = json.dumps({"db": str(self.db), "file": str(self.file), **options})
        process = await trio.lowlevel.open_process(
            [sys.executable, str(Path(__file__).with_name("crash_child.py")), arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        child = Child(process)
        try:
            with trio.fail_after(TIMEOUT):
                yield child
        finally:
            with trio.CancelScope(shield=True):
                await child.kill()
                await child.stdout.aclose()


class Child:
    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self.process = process
        self.stdout = process.stdout
        self._read = ""

    async def wait_for(self, word: str) -> str:
        """Wait for a line that begins with the word, and return the rest of it."""
        while True:
            line, newline, rest = self._read.partition("\n")
            if newline:
                self._read = rest
                if line.partition(" ")[0] == word:
                    return line.partition(" ")[2]
                continue
            more = await self.stdout.receive_some()
            assert more, f"the child exited before it printed {word}"
            self._read += more.decode()

    async def kill(self) -> None:
        """Send SIGKILL, and wait until the process has exited."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def wait(self) -> int:
        """Wait until the process exits, and return its status."""
        return await self.process.wait()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def history(store: CronStore, job_id: str) -> list[CronRun]:
    """Return the runs of a job, oldest first."""
    return (await store.list_runs(job_id, limit=1000))[::-1]


def outcomes(runs: list[CronRun]) -> list[tuple[int, Trigger, RunStatus, Cause | None]]:
    return [(run.attempt, run.trigger, run.status, run.cause) for run in runs]


RUN_AGAIN = [(1, Trigger.SCHEDULE, *INTERRUPTED), (2, Trigger.RECOVERY, *SUCCESS)]


async def test_a_run_that_a_kill_interrupts_is_marked_and_run_again(world):
    (job_id,) = await world.add(("job", "sleep 60"))
    async with world.child() as child:
        await child.wait_for("started")
        await child.kill()
    async with open_store(world.db) as store:
        before = await history(store, job_id)
        await store.update_job(job_id, prompt="sleep 0")
    assert outcomes(before) == [(1, Trigger.SCHEDULE, RunStatus.RUNNING, None)]
    async with world.scheduler() as scheduler:
        assert [(run.id, run.job_name, run.status) for run in scheduler.recovered] == [(before[0].id, "job", RunStatus.FAILED)]
        await scheduler.wait_idle()
        runs, job = await history(scheduler.store, job_id), await scheduler.store.get_job(job_id)
    assert outcomes(runs) == RUN_AGAIN
    assert runs[0].scheduled_at == runs[1].scheduled_at
    assert runs[0].error is not None
    assert not job.enabled
    assert (job.last_error, job.retry_count) == (None, 0)
    assert world.steps() == [("start", "job", 1), ("start", "job", 2), ("end", "job", 2)]
    async with world.scheduler() as scheduler:
        assert scheduler.recovered == ()
        await scheduler.wait_idle()
        assert await history(scheduler.store, job_id) == runs


@pytest.mark.parametrize(
    ("point", "first", "second", "steps"),
    [
        pytest.param(
            "claimed",
            RUN_AGAIN,
            [(1, Trigger.SCHEDULE, *SUCCESS)],
            [("start", "a", 2), ("end", "a", 2), ("start", "b", 1), ("end", "b", 1)],
            id="between the claim and the start",
        ),
        pytest.param(
            "finishing",
            RUN_AGAIN,
            [(1, Trigger.SCHEDULE, *SUCCESS)],
            [("start", "a", 1), ("end", "a", 1), ("start", "a", 2), ("end", "a", 2), ("start", "b", 1), ("end", "b", 1)],
            id="between the return of the executor and its record",
        ),
        pytest.param(
            "finished",
            [(1, Trigger.SCHEDULE, *SUCCESS)],
            RUN_AGAIN,
            [("start", "a", 1), ("end", "a", 1), ("start", "b", 2), ("end", "b", 2)],
            id="after the record, whose transaction also started the next run",
        ),
    ],
)
async def test_a_kill_between_two_steps_loses_no_run(world, point, first, second, steps):
    ids = await world.add(("a", "sleep 0"), ("b", "sleep 0"))
    async with world.child(die_at=point) as child:
        assert await child.wait() == -signal.SIGKILL
    async with world.scheduler() as scheduler:
        await scheduler.wait_idle()
        assert outcomes(await history(scheduler.store, ids[0])) == first
        assert outcomes(await history(scheduler.store, ids[1])) == second
        assert len(scheduler.recovered) == 1
    assert world.steps() == steps


@pytest.mark.slow
async def test_a_job_that_kills_its_process_is_delayed_then_paused_and_other_jobs_lose_no_run(world):
    jobs = [("killer", "die 0.05"), *((f"n{number}", "sleep 0.01") for number in range(5))]
    killer, *neighbours = await world.add(*jobs, max_retries=2)
    starts = 0
    async with open_store(world.db) as store:
        while True:
            starts += 1
            assert starts < 20
            async with world.child(slots=2, until=killer) as child:
                if await child.wait() == 0:
                    break
        runs, job = await history(store, killer), await store.get_job(killer)
        others = [await history(store, neighbour) for neighbour in neighbours]
    # The first two crashes cost nothing, the third and the fourth one retry each; after the fifth none is left.
    assert [run.attempt for run in runs] == [1, 2, 3, 4, 5]
    assert {(run.status, run.cause) for run in runs} == {INTERRUPTED}
    for run, following in pairwise(runs[2:]):
        assert run.completed_at is not None
        assert following.started_at is not None
        assert (following.started_at - run.completed_at).total_seconds() >= RETRY.delays[0]
    assert not job.enabled
    assert job.retry_at is None
    assert job.last_error is not None
    assert "5 times in a row" in job.last_error
    for attempts in others:
        assert (attempts[-1].status, attempts[-1].cause) == SUCCESS
        assert {(run.status, run.cause) for run in attempts[:-1]} <= {INTERRUPTED}


@pytest.mark.slow
async def test_a_job_that_kills_its_process_is_paused_although_new_moments_come_due(world):
    async with open_store(world.db) as store:
        killer = await store.add_job("killer", "die 0", Interval.every(ms=200), max_retries=1)
        for _ in range(8):
            async with world.child(until=killer) as child:
                if await child.wait() == 0:
                    break
        job, runs = await store.get_job(killer), await history(store, killer)
    assert not job.enabled
    ran = [run for run in runs if run.status is not RunStatus.SKIPPED]
    assert [(run.attempt, run.status, run.cause) for run in ran] == [(attempt, *INTERRUPTED) for attempt in (1, 2, 3, 4)]


@pytest.mark.parametrize("by", ["scheduler", "own loop"])
async def test_the_run_of_an_own_loop_that_was_killed_is_recovered_by_the_next_process(world, by):
    (job_id,) = await world.add(("job", "sleep 0"))
    async with world.child(own_loop=True) as child:
        lost = await child.wait_for("started")
        await child.kill()
    if by == "scheduler":
        async with world.scheduler() as scheduler:
            assert [run.id for run in scheduler.recovered] == [lost]
            await scheduler.wait_idle()
            assert world.steps() == [("start", "job", 2), ("end", "job", 2)]
    async with open_store(world.db) as store:
        if by == "own loop":
            assert await store.get_due_jobs() == []  # this call also recovers the lost run
            (job,) = await store.get_retry_jobs()
            run_id = await store.record_run_start(job)
            await store.record_run_complete(run_id, RunStatus.SUCCESS)
        assert outcomes(await history(store, job_id)) == RUN_AGAIN
        with pytest.raises(RunClosed):
            await store.record_run_complete(lost, RunStatus.SUCCESS)


@pytest.mark.slow
async def test_two_processes_that_share_a_file_run_each_job_once(world):
    async with world.child(slots=4) as one, world.child(slots=4) as two:
        await one.wait_for("ready")
        await two.wait_for("ready")
        names = [f"j{number}" for number in range(300)]
        await world.add(*((name, "sleep 0.005") for name in names))
        async with open_store(world.db) as store:
            while len(await store.list_runs(limit=400, status=RunStatus.SUCCESS)) < 300:
                await trio.sleep(0.05)
            runs = await store.list_runs(limit=400)
    assert sorted(run.job_name for run in runs) == sorted(names)
    assert {(run.attempt, run.trigger, run.status, run.cause) for run in runs} == {(1, Trigger.SCHEDULE, *SUCCESS)}
    assert Counter(world.steps()) == Counter([(step, name, 1) for step in ("start", "end") for name in names])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs job control")
async def test_a_stopped_process_loses_its_run_when_its_lease_expires_and_cannot_finish_it_later(world, monkeypatch):
    monkeypatch.setattr(
        leases, "LEASE", 600
    )  # a process must watch for so long before it trusts that another's lease has expired
    (job_id,) = await world.add(("job", "sleep 0.4"))
    async with world.child(lease=600) as child:
        await child.wait_for("started")
        child.process.send_signal(signal.SIGSTOP)
        async with world.scheduler() as scheduler:
            while len(runs := await history(scheduler.store, job_id)) < 2 or not runs[-1].status.ended:
                await trio.sleep(0.05)
            assert outcomes(runs) == RUN_AGAIN
            child.process.send_signal(signal.SIGCONT)
            await trio.sleep(1)  # real time, in which the executor returns, or is cancelled
            assert child.process.poll() is None
            assert await history(scheduler.store, job_id) == runs
    own, other = child.process.pid, os.getpid()
    steps = world.steps_by_process()
    assert [step for step in steps if step[3] == other] == [("start", "job", 2, other), ("end", "job", 2, other)]
    assert [step[:3] for step in steps if step[3] == own] in ([("start", "job", 1)], [("start", "job", 1), ("end", "job", 1)])


@pytest.mark.slow
async def test_a_process_whose_loop_is_blocked_keeps_its_run(world, monkeypatch):
    monkeypatch.setattr(
        leases, "LEASE", 600
    )  # a process must watch for so long before it trusts that another's lease has expired
    (job_id,) = await world.add(("job", "block 1.5"))
    async with world.child(lease=600) as child:
        await child.wait_for("started")
        async with world.scheduler() as scheduler:
            while not (runs := await history(scheduler.store, job_id))[0].status.ended:
                await trio.sleep(0.05)
    assert outcomes(runs) == [(1, Trigger.SCHEDULE, *SUCCESS)]
    assert world.steps() == [("start", "job", 1), ("end", "job", 1)]


@pytest.mark.slow
async def test_ten_kills_under_load(world):
    print(f"CRASH_SEED={SEED}")  # noqa: T201 - shown when the test fails, to run it again
    chance = random.Random(SEED)
    names = [f"j{number}" for number in range(400)]
    ids = await world.add(*((name, f"sleep {chance.uniform(0, 0.02):.4f}") for name in names), max_retries=1000)
    for _ in range(10):
        async with world.child(slots=4) as child:
            await child.wait_for("ready")
            await trio.sleep(chance.uniform(0, 0.15))  # real time, so that each kill hits another step
            await child.kill()
    async with world.scheduler(slots=20) as scheduler:
        await scheduler.wait_idle()
        while await scheduler.store.list_runs(limit=1, status=RunStatus.PENDING):  # a retry of a job that was hit three times
            await trio.sleep(0.05)
        await scheduler.wait_idle()
        histories = {name: await history(scheduler.store, job_id) for name, job_id in zip(names, ids, strict=True)}
    steps = Counter(world.steps())
    assert set(steps.values()) == {1}, "an attempt was started twice"
    for name, runs in histories.items():
        assert [run.attempt for run in runs] == list(range(1, len(runs) + 1))
        assert [(run.status, run.cause) for run in runs] == [INTERRUPTED] * (len(runs) - 1) + [SUCCESS]
        assert ("start", name, len(runs)) in steps
        assert ("end", name, len(runs)) in steps
    known = {(name, run.attempt) for name, runs in histories.items() for run in runs}
    assert {(name, attempt) for _, name, attempt in steps} <= known
    assert sum(len(runs) - 1 for runs in histories.values()) > 0, "no kill hit a run: the test proves nothing"
