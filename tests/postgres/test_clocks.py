"""Machines whose clocks are an hour off: everything is decided, slept, leased and written down by the clock of the server.

As a program this is a scheduler on such a machine: ``test_clocks.py OPTIONS``, a JSON object. It prints a line when it is ready.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
import trio

from cronactors import (
    Cron,
    CronConfig,
    CronJob,
    CronRun,
    CronStore,
    Interval,
    JobContext,
    JobSpec,
    OneShot,
    RunStatus,
    current_run,
    now,
    open_scheduler,
    open_store,
)
from tests.chaos.child import say
from tests.chaos.judge import Ledger, judge, read_rows
from tests.chaos.postgres_child import scale_lease_guard
from tests.cli_command import ROOT
from tests.crash_child import shorten_leases
from tests.postgres_server import new_database, shared_server

HOUR = 3600.0
TICK = 0.3
LEASE = 1_500
PATIENCE = 30.0
CLOCK = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
ASKS = re.compile(r"\btime\.time(_ns)?\b|\bsystem_wall\b|\bdatetime\.(now|utcnow)\b")
TIMES = """SELECT 'jobs', created_at FROM jobs UNION SELECT 'jobs', anchor_at FROM jobs UNION SELECT 'owners', heartbeat_at FROM owners
 UNION SELECT 'runs', ready_at FROM runs UNION SELECT 'runs', started_at FROM runs UNION SELECT 'runs', completed_at FROM runs
 UNION SELECT 'notifications', created_at FROM notifications UNION SELECT 'run_output', at FROM run_output"""


@attrs.frozen(kw_only=True)
class Options:
    """Options of the program; its clock is ``skew`` s ahead."""

    db: str
    ledger: str
    skew: float
    lease: int | None = None


def set_clock(skew: float) -> None:
    """Let the clock of this process show another time."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + skew
    time.time_ns = lambda: real_ns() + round(skew * 1e9)


async def live(options: Options) -> None:
    ledger = Ledger(options.ledger)

    async def execute(ctx: JobContext) -> None:
        ledger.write("start", ctx)
        current_run().log("here")
        await trio.sleep(float(ctx.prompt))
        ledger.write("end", ctx)

    async def on_finish(job: CronJob, run: CronRun) -> None:
        pass

    jobs = [JobSpec(f"added with {options.skew:+g}", "0", Interval(400))]
    config = CronConfig(max_concurrent_runs=2, shutdown_grace=0)
    async with open_scheduler(options.db, execute, jobs=jobs, config=config, tick_interval=TICK, on_finish=on_finish):
        say("ready")
        await trio.sleep_forever()


def main(options: Options) -> None:
    set_clock(options.skew)
    if options.lease is not None:
        shorten_leases(options.lease)
        scale_lease_guard(options.lease)
    trio.run(live, options)


# The other side


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(db=new_database(shared_server()), ledger=str(tmp_path / "ledger"), skew=0)


@asynccontextmanager
async def machine(options: Options) -> AsyncIterator[trio.Process]:
    """Run the program. Nothing in its log may be about clocks."""
    log = Path(f"{options.ledger}.{options.skew:+g}.log")
    with log.open("wb") as errors:
        command = [sys.executable, __file__, json.dumps(attrs.asdict(options))]
        process = await trio.lowlevel.open_process(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=errors
        )
    assert process.stdout is not None
    try:
        with trio.fail_after(PATIENCE):
            assert await process.stdout.receive_some() == b"ready\n", log.read_text()
        yield process
    finally:
        process.kill()
        await process.wait()
        sys.stderr.write(log.read_text())  # shown if the test fails
    assert "clock" not in log.read_text()


async def until_success(store: CronStore, job_ids: list[str], runs: int = 1) -> list[CronRun]:
    """Wait until each of these jobs has so many successful runs, and return all that have ended."""
    with trio.fail_after(PATIENCE):
        while True:
            ended = [run for run in await store.list_runs(limit=1000) if run.status.ended]
            done = Counter(run.job_id for run in ended if run.status is RunStatus.SUCCESS)
            if all(done[job_id] >= runs for job_id in job_ids):
                return ended
            await trio.sleep(0.05)


def test_few_modules_ask_the_clock_of_the_machine() -> None:
    """The command line only shows the time. Each of the others has its reason, and decides nothing about jobs on a server by it."""
    package = ROOT / "cronactors"
    files = (file for file in package.rglob("*.py") if not file.is_relative_to(package / "cli"))
    asking = {str(file.relative_to(package)) for file in files if ASKS.search(file.read_text())}
    assert asking == {
        "wallclock.py",
        "ids.py",  # the order of ids, for indexes
        "actors/clock.py",  # whether the clock stands still
        "actors/store_lifetime.py",  # gives it to a store in a file
        "storage/read_only.py",  # likewise
        "storage/sqlite.py",  # the clock of a store in a file
        "storage/file_state.py",  # the age of a file
        "storage/sqlite_copying.py",  # of a file
        "copying.py",  # when a file was moved, for people
    }


@pytest.mark.slow
@pytest.mark.parametrize("skews", [(HOUR,), (-HOUR,), (HOUR, -HOUR)], ids=["ahead", "behind", "both"])
async def test_moments_come_by_the_clock_of_the_server(skews: tuple[float, ...], options: Options) -> None:
    ((began,),) = read_rows(options.db, CLOCK)[0]
    async with AsyncExitStack() as stack:
        for skew in skews:
            await stack.enter_async_context(machine(attrs.evolve(options, skew=skew)))
        store = await stack.enter_async_context(open_store(options.db, create=False))
        once = await store.add_job("once", "0", OneShot(now() + timedelta(seconds=1)))
        often = await store.add_job("often", "0", Interval(300))
        cron = await store.add_job("cron", "0", Cron("* * * * * *"))
        own = [job.id for job in await store.list_jobs() if job.name.startswith("added")]
        runs = await until_success(store, [once])
        runs = await until_success(store, [often, *own], 4)
        runs = await until_success(store, [cron], 2)
        times, ((ended,),) = read_rows(options.db, TIMES, CLOCK)
    late = {(run.job_name, run.scheduled_at): (run.started_at or run.scheduled_at) - run.scheduled_at for run in runs}
    assert timedelta(0) <= min(late.values())
    assert max(late.values()) < timedelta(seconds=3 * TICK)
    assert {table for table, _ in times} == {"jobs", "owners", "runs", "notifications", "run_output"}
    assert not [each for each in times if each[1] is not None and not began <= each[1] <= ended]
    assert set(Counter((entry.what, entry.job, entry.at) for entry in Ledger(options.ledger).read()).values()) == {1}


@pytest.mark.slow
async def test_leases_of_all_machines_are_respected(options: Options) -> None:
    """Each of two machines finds the clock of the other an hour or two off, and neither takes over the long run of the other."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(options.db))
        for skew in (HOUR, -HOUR):
            await stack.enter_async_context(machine(attrs.evolve(options, skew=skew, lease=LEASE)))
        due = OneShot(now())
        long = await store.add_jobs([JobSpec(f"long {n}", str(4 * LEASE / 1000), due, max_retries=0) for n in range(3)])
        runs = await until_success(store, long)
    assert {run.attempt for run in runs if run.job_id in long} == {1}
    assert {run.status for run in runs} <= {RunStatus.SUCCESS, RunStatus.SKIPPED}
    assert len({entry.pid for entry in Ledger(options.ledger).read() if entry.job in long}) == 2


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs job control")
@pytest.mark.parametrize("skew", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_stopped_machine_loses_its_runs_after_its_lease(skew: float, options: Options) -> None:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(options.db))
        stopped = await stack.enter_async_context(machine(attrs.evolve(options, skew=skew, lease=LEASE)))
        length = 2 * LEASE / 1000
        (job_id,) = await store.add_jobs([JobSpec("long", str(length), OneShot(now()))])
        with trio.fail_after(PATIENCE):
            while not any(entry.job == job_id for entry in Ledger(options.ledger).read()):
                await trio.sleep(0.02)
        stopped.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        await stack.enter_async_context(machine(attrs.evolve(options, skew=-skew, lease=LEASE)))
        while (run := (await store.list_runs(job_id))[0]).attempt == 1:
            assert time.monotonic() - began < PATIENCE
            await trio.sleep(0.02)
        took = time.monotonic() - began
        runs = await until_success(store, [job_id])
    assert LEASE / 3000 < took < 10 * LEASE / 1000
    history = sorted((each.attempt, each.status, each.started_at) for each in runs if each.job_id == job_id)
    assert [each[:2] for each in history] == [(1, RunStatus.FAILED), (2, RunStatus.SUCCESS)]
    assert run.job_id == job_id
    judge(options.db, Ledger(options.ledger), acknowledged=[job_id], idle=False)


if __name__ == "__main__":
    main(Options(**json.loads(sys.argv[1])))
