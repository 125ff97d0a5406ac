"""Several schedulers on one file: each moment runs once, both limits hold, a process stopped for too long loses its runs."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing

import attrs
import pytest
import trio

from cronactors import JobSpec, OneShot, now, open_store
from cronactors.ledger import leases
from tests.chaos.child import Life, Options, open_lives
from tests.chaos.judge import Ledger, judge, judge_interrupted, most_at_once, read_database
from tests.chaos.sizes import quick_and_full

SLOTS = 4
BATCH = 10_000  # jobs a call of add_jobs


@pytest.fixture
def options(tmp_path):
    return Options(db=str(tmp_path / "agent.db"), ledger=str(tmp_path / "ledger"), slots=SLOTS)


async def add(options: Options, count: int, prompt: str) -> list[str]:
    """Add one-shots that are due."""
    name = time.monotonic_ns()
    async with open_store(options.db) as store:
        return await store.add_jobs([JobSpec(f"{name}.{number}", prompt, OneShot(now())) for number in range(count)])


def count_ended(options: Options) -> int:
    with closing(sqlite3.connect(options.db)) as connection:
        return connection.execute("SELECT count(*) FROM runs WHERE status = 'success'").fetchone()[0]


@quick_and_full("shots", 1_000, 10_000)
@pytest.mark.parametrize(("schedulers", "total"), [(2, 6), (5, 18)])
async def test_each_of_many_one_shots_runs_exactly_once_within_both_limits(schedulers, total, shots, figures, options):
    options = attrs.evolve(options, total=total)
    ids = [job_id for first in range(0, shots, BATCH) for job_id in await add(options, min(BATCH, shots - first), "sleep 0.01")]
    began = time.monotonic()
    async with open_lives(options, timeout=25 + shots / 40) as lives:
        alive = [await lives.begin() for _ in range(schedulers)]
        while count_ended(options) < shots:
            assert all(life.status is None for life in alive)
            await trio.sleep(0.1)
        took = time.monotonic() - began
        for life in alive:
            life.send(signal.SIGINT)
            assert await life.gone() == 0
    ledger = Ledger(options.ledger)
    judgement = judge(options.db, ledger, acknowledged=ids)
    entries = ledger.read()
    assert Counter((entry.what, entry.job) for entry in entries) == Counter(
        (what, job) for what in ("start", "end") for job in ids
    )
    assert {(row.attempt, row.status) for row in read_database(options.db)[1]} == {(1, "success")}
    overall, each = most_at_once(entries)
    assert set(each) == {life.pid for life in alive}, "a scheduler did nothing"
    assert max(each.values()) <= SLOTS
    assert SLOTS < overall <= total
    shares = "/".join(str(count) for count in sorted(Counter(entry.pid for entry in entries if entry.what == "start").values()))
    figures(
        f"{schedulers} schedulers, {shots} one-shots ({shares}), at most {max(each.values())} at a time in each of {SLOTS} slots"
        f" and {overall} over all of {total}; {judgement}; {shots / took:.0f} runs/s"
    )


def stopped_outside_a_transaction(options: Options, life: Life) -> bool:
    """Stop a process; if that was inside a transaction, it holds the lock and is continued."""
    life.send(signal.SIGSTOP)
    with closing(sqlite3.connect(options.db, timeout=1, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            life.send(signal.SIGCONT)
            return False
        connection.execute("ROLLBACK")
    return True


async def until_started(options: Options, life: Life, jobs: list[str]) -> list[int]:
    """Wait until the process runs some of the jobs; return their runs."""
    while True:
        entries = [entry for entry in Ledger(options.ledger).read() if entry.job in jobs and entry.pid == life.pid]
        ended = {entry.run for entry in entries if entry.what == "end"}
        if runs := [entry.run for entry in entries if entry.run not in ended]:
            return runs
        assert life.status is None
        await trio.sleep(0.01)


async def until_done(options: Options, jobs: list[str]) -> None:
    while True:
        done = {row.job for row in read_database(options.db)[1] if row.status == "success"}
        if done.issuperset(jobs):
            return
        await trio.sleep(0.05)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs job control")
@pytest.mark.parametrize(
    ("lease", "rounds"),
    [
        pytest.param(800, 2, id="quick", marks=pytest.mark.slow),
        pytest.param(800, 40, id="full", marks=pytest.mark.chaos),
        pytest.param(None, 3, id="full, with the real lease", marks=pytest.mark.chaos),
    ],
)
async def test_the_runs_of_a_stopped_process_are_taken_over_after_its_lease_and_it_works_again_when_continued(
    lease, rounds, figures, options
):
    """Two processes are stopped by turns; the one that was continued does the work of the next round."""
    options = attrs.evolve(options, lease=lease)
    seconds = (lease or leases.LEASE) / 1000
    length = (
        seconds  # seconds of work that are left when the process is continued, so that it has to be cancelled; that takes a tick
    )
    waits, fenced, jobs, again = [], 0, [], 0
    async with open_lives(options, timeout=30 + rounds * 10 * seconds) as lives:
        one, other = await lives.begin(), await lives.begin()
        await one.ready()
        await other.ready()
        await trio.sleep(1.2 * seconds)  # real time: a process trusts the end of a lease only after it has watched for as long
        for _ in range(rounds):
            batch = await add(options, 2 * SLOTS, f"toil {length}")
            runs = await until_started(options, one, batch)
            while not stopped_outside_a_transaction(options, one):
                again += 1
                await trio.sleep(0.02)
            stopped = time.monotonic()
            while any(row.status == "running" for row in read_database(options.db)[1] if row.id in runs):
                assert other.status is None
                await trio.sleep(0.02)
            waits.append(time.monotonic() - stopped)
            await until_done(options, batch)
            before = [row for row in read_database(options.db)[1] if row.job in batch]
            one.send(signal.SIGCONT)
            await trio.sleep(1.5 * length)  # real time, in which it would finish if it were not cancelled
            assert [row for row in read_database(options.db)[1] if row.job in batch] == before
            lost = {row.id for row in before if row.id in runs and row.cause == "interrupted"}
            assert not lost & {entry.run for entry in Ledger(options.ledger).read() if entry.what == "end"}, "not cancelled"
            fenced += len(lost)
            jobs += batch
            one, other = other, one  # the continued process has to do the work of the next round
        for life in (one, other):
            assert life.status is None
            life.send(signal.SIGINT)
            assert await life.gone() == 0
    judgement = judge(options.db, Ledger(options.ledger), acknowledged=jobs)
    judge_interrupted(options.db)
    assert fenced >= rounds
    assert min(waits) > seconds / 3  # a lease is renewed before its end
    assert max(waits) < 10 * seconds
    figures(
        f"{rounds} times stopped with a lease of {seconds:g} s, {fenced} runs taken over after "
        f"{min(waits):.1f} to {max(waits):.1f} s, {again} times stopped inside a transaction and continued; {judgement}"
    )
