"""PostgreSQL as the store: cronactors, a bare batch, Procrastinate and SQLite in turns, on one server with fsync.

python benchmarks/postgres.py                     three rounds, some 10 minutes
python benchmarks/postgres.py --only lateness     scenarios with this in their name
python benchmarks/postgres.py --rounds 1 --quick  a quick check with smaller sizes

Needs the extra dev, whose package has the server. Each scenario is a process of its own, with a database of its own. Rates count from
the first start to the last finish, by the times that are stored. The figures go to results_postgres.json, the table to the terminal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bench
import measuring
import ours
import psycopg
import trio
from bench import Goal, Scenario, ratio, value

from cronactors import CronConfig, JobContext, JobSpec, OneShot, open_scheduler, open_store

HERE = Path(__file__).parent
RESULTS = HERE / "results_postgres.json"
ADDRESS = "CRONACTORS_BENCH_POSTGRES"
"""The variable with the address of a scenario's database."""
SETTINGS = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB"}


def address() -> str:
    return os.environ[ADDRESS]


async def add(specs: Sequence[JobSpec]) -> None:
    async with open_store(address()) as store:
        for first in range(0, len(specs), ours.TOGETHER):
            await store.add_jobs(specs[first : first + ours.TOGETHER])


# The processes of a scenario


def worker(slots: int) -> dict[str, Any]:
    """Run what is due."""

    async def work() -> None:
        async with open_scheduler(address(), ours.nothing, config=CronConfig(max_concurrent_runs=slots)) as scheduler:
            await scheduler.wait_idle()

    measuring.wait_for_start()
    trio.run(work)
    return {}


def listener(slots: int) -> dict[str, Any]:
    """Run jobs until a line is read, and report when each of them began."""
    began: list[tuple[str, float]] = []

    async def note(context: JobContext) -> None:
        began.append((context.job_name, time.time()))

    async def work() -> None:
        async with open_scheduler(address(), note, config=CronConfig(max_concurrent_runs=slots)):
            await trio.to_thread.run_sync(measuring.wait_for_start)

    trio.run(work)
    return {"began": began}


def command(name: str, *numbers: int) -> list[str]:
    return [sys.executable, __file__, name, *map(str, numbers)]


@contextmanager
def listeners(count: int, slots: int) -> Iterator[list[tuple[str, float]]]:
    """Schedulers in processes of their own; after the block the list has the jobs that they have run, and when each began."""
    began: list[tuple[str, float]] = []
    children = measuring.ready([command("listener", slots)] * count)
    yield began
    for figures in measuring.released(children):
        began += figures["began"]


# Scenarios


def throughput(slots: int = 100, count: int = 4_000, processes: int = 1) -> dict[str, Any]:
    """Run due one-shots."""
    trio.run(add, ours.due_now(count))
    measuring.released(measuring.ready([command("worker", slots)] * processes))
    with psycopg.connect(address()) as connection:
        query = "SELECT count(*), max(completed_at) - min(started_at) FROM cronactors.runs WHERE status = 'success'"
        done, took_ms = connection.execute(query).fetchone() or (0, 0)
    assert done == count, done
    return {"runs_per_s": 1000 * count / took_ms}


def lateness(schedulers: int = 1, count: int = 500) -> dict[str, Any]:
    """Measure how late one-shots begin, 50 a second."""
    with listeners(schedulers, 10) as began:
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
        moments = [start + timedelta(milliseconds=20 * number) for number in range(count)]
        trio.run(add, [JobSpec(f"{number}", "do it", OneShot(at)) for number, at in enumerate(moments)])
        time.sleep(start.timestamp() + count / 50 + 1 - time.time())
    late = [(at - start.timestamp()) * 1000 - 20 * int(name) for name, at in began]
    assert len(late) == count, len(late)
    return {"p50_ms": measuring.quantile(late, 0.5), "p99_ms": measuring.quantile(late, 0.99)}


def wake_up(count: int = 200) -> dict[str, Any]:
    """Measure how long a job that is added, and due, takes to begin in another process."""
    added: dict[str, float] = {}

    async def add_one_by_one() -> None:
        async with open_store(address()) as store:
            for number in range(count):
                await trio.sleep(random.uniform(0.02, 0.06))
                added[f"{number}"] = time.time()
                await store.add_job(f"{number}", "do it", OneShot(datetime.now(UTC)))

    with listeners(1, 10) as began:
        trio.run(add_one_by_one)
        time.sleep(1.5)
    took = [(at - added[name]) * 1000 for name, at in began]
    assert len(took) == count, len(took)
    return {"p50_ms": measuring.quantile(took, 0.5), "p99_ms": measuring.quantile(took, 0.99)}


TABLES = """
CREATE TABLE jobs (id bigint PRIMARY KEY, prompt text NOT NULL);
CREATE TABLE job_state (id bigint PRIMARY KEY, next_run_at bigint, held_by bigint) WITH (fillfactor = 50);
CREATE INDEX job_state_due ON job_state (next_run_at) WHERE held_by IS NULL AND next_run_at IS NOT NULL;
CREATE TABLE runs (id bigserial PRIMARY KEY, job_id bigint NOT NULL, scheduled_at bigint NOT NULL, status text NOT NULL,
  started_at bigint NOT NULL, completed_at bigint, result text, UNIQUE (job_id, scheduled_at));
"""
LOCK = "SELECT id FROM job_state WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"
FINISH = "UPDATE runs SET status = 'success', completed_at = $1, result = 'done' WHERE id = ANY($2)"
RELEASE = "UPDATE job_state SET held_by = NULL WHERE id = ANY($1)"
DUE = """SELECT id, next_run_at FROM job_state WHERE held_by IS NULL AND next_run_at <= $1 ORDER BY next_run_at LIMIT $2
 FOR NO KEY UPDATE SKIP LOCKED"""
PROMPTS = "SELECT id, prompt FROM jobs WHERE id = ANY($1)"
INSERT = """INSERT INTO runs (job_id, scheduled_at, status, started_at)
 SELECT new.job_id, new.at, 'running', $1 FROM unnest($2::bigint[], $3::bigint[]) AS new (job_id, at) RETURNING id, job_id"""
HOLD = """UPDATE job_state SET next_run_at = NULL, held_by = new.run_id FROM unnest($1::bigint[], $2::bigint[]) AS new (run_id, job_id)
 WHERE id = new.job_id"""
NEXT = "SELECT min(next_run_at) FROM job_state WHERE held_by IS NULL AND next_run_at IS NOT NULL"


def bare_batch(size: int = 100, count: int = 4_000) -> dict[str, Any]:
    """Finish and claim so many runs with each commit, in a plain loop: no ledger, no rules, no event loop.

    It takes the steps that a scheduler cannot leave out, each as one statement: begin, lock the jobs, finish their runs, release
    them, find what is due, read it, insert the runs, hold their jobs, read when something is due next, and commit.
    """
    with psycopg.connect(address(), autocommit=True, prepare_threshold=0) as connection:
        connection.execute(TABLES, prepare=False)
        cursor = psycopg.RawCursor(connection)
        cursor.execute("INSERT INTO jobs SELECT n, 'do it' FROM generate_series(1, $1) AS n", [count])
        cursor.execute("INSERT INTO job_state SELECT n, 0 FROM generate_series(1, $1) AS n", [count])
        cursor.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off", prepare=False)
        running: list[tuple[int, int]] = []
        began = time.perf_counter()
        while True:
            now = time.time_ns() // 1_000_000
            cursor.execute("BEGIN")
            if running:
                run_ids, job_ids = map(list, zip(*running, strict=True))
                cursor.execute(LOCK, [job_ids]).fetchall()
                cursor.execute(FINISH, [now, run_ids])
                cursor.execute(RELEASE, [job_ids])
            due = cursor.execute(DUE, [now, size]).fetchall()
            if due:
                due_ids, moments = map(list, zip(*due, strict=True))
                cursor.execute(PROMPTS, [due_ids]).fetchall()
                running = cursor.execute(INSERT, [now, due_ids, moments]).fetchall()
                cursor.execute(HOLD, list(map(list, zip(*running, strict=True))))
                cursor.execute(NEXT).fetchall()
            cursor.execute("COMMIT")
            if not due:
                return {"runs_per_s": count / (time.perf_counter() - began)}


def plan(*, quick: bool) -> Iterator[Scenario]:
    """Yield the scenarios. Those that are compared follow each other, when the machine is in the same state."""
    peer = "peers.py", "procrastinate", "throughput"
    for slots in (100, 10, 1):
        count = (4_000 if slots > 1 else 2_000) // (8 if quick else 1)
        yield Scenario(f"procrastinate {slots}", (*peer, str(slots), str(count)))
        yield Scenario(f"ours {slots}", ("postgres.py", "throughput", str(slots), str(count)))
        yield Scenario(f"bare batch {slots}", ("postgres.py", "bare_batch", str(slots), str(count)))
        yield Scenario(f"sqlite {slots}", ("ours.py", "throughput", str(slots), str(count if slots > 1 else 5 * count)))
    count = 2_000 if quick else 16_000
    yield Scenario("procrastinate, 4 workers", (*peer, "25", str(count // 4), "4"))
    for processes in (1, 4):
        yield Scenario(f"ours 100, processes {processes}", ("postgres.py", "throughput", "100", str(count), str(processes)))
    for schedulers in (1, 4):
        yield Scenario(f"lateness {schedulers}", ("postgres.py", "lateness", str(schedulers), "100" if quick else "500"))
    yield Scenario("sqlite lateness", ("ours.py", "lateness", "100" if quick else "500"))
    yield Scenario("wake-up", ("postgres.py", "wake_up", "20" if quick else "200"))


GOALS = (
    *(
        Goal(f"{slots} slots / Procrastinate", must, aim, ratio(f"ours {slots}", f"procrastinate {slots}", "runs_per_s"))
        for slots, must, aim in ((100, 5, 8), (10, 2.5, 3.5), (1, 0.7, 1))
    ),
    Goal("4 processes / its 4 workers", 8, 14, ratio("ours 100, processes 4", "procrastinate, 4 workers", "runs_per_s")),
    Goal("4 processes / 1", 1.3, 2, ratio("ours 100, processes 4", "ours 100, processes 1", "runs_per_s")),
    *(
        Goal(f"{slots} slots / bare batch", 0.5, None, ratio(f"ours {slots}", f"bare batch {slots}", "runs_per_s"))
        for slots in (100, 10, 1)
    ),
    *(
        Goal(f"{slots} slots / SQLite", 0, None, ratio(f"ours {slots}", f"sqlite {slots}", "runs_per_s"))
        for slots in (100, 10, 1)
    ),
    Goal("lateness at 50/s, p99, 1 scheduler", 10, None, value("lateness 1", "p99_ms"), False, "ms"),
    Goal("lateness at 50/s, p99, 4 schedulers", 10, None, value("lateness 4", "p99_ms"), False, "ms"),
    Goal("a job added by another process begins, p99", 100, 10, value("wake-up", "p99_ms"), False, "ms"),
)


def measure(scenarios: list[Scenario], rounds: int) -> dict[str, Any]:
    """Measure on a server of our own; each scenario gets a new database."""
    sys.path.append(str(HERE.parent))
    from tests.postgres_server import OwnServer, new_database  # noqa: PLC0415 -- the processes of a scenario start without it

    taken: dict[str, list[dict[str, Any]]] = {}
    with OwnServer(**SETTINGS) as server:
        for _ in range(rounds):
            for scenario in scenarios:
                os.environ[ADDRESS] = new_database(server)
                with psycopg.connect(server.url(), autocommit=True) as connection:
                    connection.execute("CHECKPOINT")  # or one that the last scenario has left would disturb this one
                    (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
                for name, figures in bench.measure([scenario], 1).items():
                    taken.setdefault(name, []).extend(figures)
    machine = f"{platform.machine()}, Python {platform.python_version()}, PostgreSQL {version}, psycopg {psycopg.__version__}"
    return {"machine": machine, "rounds": taken}


def spreads(rounds: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Yield the median of each figure, and the least and the greatest, as lines of Markdown."""
    yield "| what | median | least | greatest |"
    yield "|---|---|---|---|"
    for name, figures in rounds.items():
        for key in dict.fromkeys(key for each in figures for key, number in each.items() if isinstance(number, int | float)):
            numbers = [each[key] for each in figures if key in each]
            shown = " | ".join(bench.show(number) for number in (statistics.median(numbers), min(numbers), max(numbers)))
            yield f"| {name}: {key} | {shown} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true", help="only show what was measured last")
    chosen = parser.parse_args()
    if not chosen.table:
        subprocess.run([sys.executable, str(HERE / "peers.py"), "--prepare", "procrastinate"], check=True)
        stored = measure([each for each in plan(quick=chosen.quick) if chosen.only in each.name], chosen.rounds)
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n")
    stored = json.loads(RESULTS.read_text())
    figures = bench.medians(stored["rounds"])
    print(stored["machine"], *spreads(stored["rounds"]), "", *bench.table(figures, GOALS), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        measuring.answer(sys.argv[1:], worker, listener, throughput, lateness, wake_up, bare_batch)
    else:
        main()
