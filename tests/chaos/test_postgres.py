"""Five schedulers on a PostgreSQL server: killed, stopped and restarted at random, as the server is, they lose and double nothing."""

from __future__ import annotations

import faulthandler
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import psycopg
import pytest
import trio

from cronactors import CronConfig, OneShot, open_scheduler, open_store
from tests.chaos import postgres_child
from tests.chaos.child import RETRY, Options, carry_out, open_lives, receivers_of
from tests.chaos.judge import Ledger, judge, judge_interrupted, read_rows
from tests.chaos.notified import Calls, judge_notifications
from tests.chaos.postgres_judge import INTERRUPTED, judge_crons, judge_interruptions, judge_shared, spans
from tests.chaos.postgres_scenario import LEASE, LONGEST_DELAY, SCHEDULERS, SLOTS, TOTAL, Act, Company, specs
from tests.postgres_server import OwnServer, new_database

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs job control")

STEPS = {"* * * * * *": 1000, "*/3 * * * * *": 3000}
UNDONE = "SELECT count(*) FROM job_state WHERE enabled = 1 AND id IN (SELECT id FROM jobs WHERE name LIKE 'shot %')"
UNDELIVERED = """SELECT count(*) FROM notifications WHERE status = 'pending'
 AND created_at < extract(epoch FROM clock_timestamp()) * 1000 - 1000"""


@attrs.frozen
class Size:
    shots: int
    acts: dict[Act, int]
    pause: float
    limit: float
    total: int | None = TOTAL


QUICK = Size(
    300,
    {
        "kill": 2,
        "kill in transaction": 2,
        "stop": 1,
        "stop in transaction": 3,
        "kill the server": 1,
    },
    pause=0.4,
    limit=90,
)
FULL = Size(
    10_000,
    {
        "kill": 30,
        "kill in transaction": 20,
        "stop": 25,
        "stop in transaction": 25,
        "stop past the lease": 6,
        "fast": 4,
        "immediate": 3,
        "kill the server": 3,
    },
    pause=1,
    limit=1800,
)


async def until_zero(db: str, statement: str) -> None:
    while True:
        with suppress(psycopg.OperationalError):  # the server is down
            if read_rows(db, statement) == [[(0,)]]:
                return
        await trio.sleep(0.1)


async def run_undisturbed(options: Options) -> None:
    """Let one scheduler do what is left, and deliver all notifications."""
    config = CronConfig(max_concurrent_runs=SLOTS, retry=RETRY)
    executor = partial(carry_out, Ledger(options.ledger))
    async with open_scheduler(options.db, executor, config=config, tick_interval=0.05, **receivers_of(options)):
        with trio.fail_after(60):
            await until_zero(options.db, UNDONE)
            await until_zero(options.db, UNDELIVERED)


# With a total claims go one after the other; without one they go beside each other.
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(QUICK, id="quick", marks=pytest.mark.slow),
        pytest.param(FULL, id="full", marks=pytest.mark.chaos),
        pytest.param(attrs.evolve(FULL, total=None), id="full, without a total", marks=pytest.mark.chaos),
    ],
)
async def test_schedulers_and_server_fail_at_random_and_nothing_is_lost_or_doubled(
    size: Size, seed: int, figures: Callable[[str], None], tmp_path: Path
):
    faulthandler.dump_traceback_later(2 * size.limit, exit=True)  # later than that of all tests
    chance = random.Random(seed)
    began = time.monotonic()
    with OwnServer(fsync="on", full_page_writes="on") as server:
        files = {name: str(tmp_path / name) for name in ("ledger", "calls")}
        options = Options(db=new_database(server), slots=SLOTS, total=size.total, lease=LEASE, **files)
        jobs = specs(chance, size.shots)
        async with open_store(options.db) as store:
            ids = [*await store.add_jobs(jobs[: size.shots]), *await store.add_jobs(jobs[size.shots :])]
        shots = {job_id for job_id, spec in zip(ids, jobs, strict=True) if isinstance(spec.schedule, OneShot)}
        acts = [act for act, count in size.acts.items() for _ in range(count)]
        chance.shuffle(acts)
        async with open_lives(options, size.limit, program=postgres_child.__file__) as lives, trio.open_nursery() as nursery:
            company = Company(lives, options, server, chance)
            for place in range(SCHEDULERS):
                nursery.start_soon(company.keep_alive, place)
            await company.do(acts, size.pause)
            await until_zero(options.db, UNDONE)
            took = time.monotonic() - began
            company.close()
        await run_undisturbed(options)
        ledger = Ledger(options.ledger)
        entries = ledger.read()
        judgement = judge(options.db, ledger, acknowledged=ids, stopped=True)
        judgement += f"; {judge_notifications(options.db, Calls(options.calls))}"
        judge_interrupted(options.db)
        judge_interruptions(options.db, entries, hit=company.hit, outages=company.outages)
        most_each, most = judge_shared(spans(options.db, entries), slots=SLOTS, total=size.total or SLOTS * SCHEDULERS)
        moments = judge_crons(options.db, STEPS)
        done, starts = read_rows(
            options.db,
            "SELECT job_id FROM runs WHERE status = 'success'",
            f"SELECT started_at / 1000.0 FROM runs WHERE started_at IS NOT NULL AND NOT {INTERRUPTED}",
        )
    successes = Counter(job for (job,) in done if job in shots)
    assert successes == dict.fromkeys(shots, 1)
    again = sum(
        count - 1 for count in Counter(entry.job for entry in entries if entry.what == "end" and entry.job in shots).values()
    )
    worst = company.worst_delay([float(at) for (at,) in starts])
    assert worst < 3 * LONGEST_DELAY
    doings = ", ".join(f"{count} x {act}" for act, count in company.done.most_common())
    longest = max((ended - start for start, ended in company.down), default=0.0)
    figures(
        f"{doings}; {company.restarts} restarts of schedulers, {company.unavailable} of them of one that found the server down, which "
        f"was at most {longest:.1f} s; {judgement}; {len(shots)} one-shots, lost 0, twice 0, executed again after an interruption "
        f"{again}; {moments} moments of cron jobs; at most {most_each} at a time in one of {SLOTS} slots and {most} in all of {size.total or 'any number'};"
        f" worst delay by a stopped scheduler {worst:.2f} s; {took:.0f} s"
    )
