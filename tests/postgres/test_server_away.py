"""Whole schedulers whose server is away for a while, and schedulers that are stopped while they hold locks."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import trio

from cronactors import (
    CronConfig,
    CronJob,
    CronRun,
    CronStore,
    Interval,
    JobContext,
    JobSpec,
    OneShot,
    RunStatus,
    StoreUnavailable,
    current_run,
    open_scheduler,
    open_store,
)
from cronactors.actors import store as store_actor
from cronactors.actors.storage_thread import HEARTBEAT_RETRY
from cronactors.ledger import leases
from cronactors.storage.postgres import connecting, session
from cronactors.storage.postgres.storage import PostgresStorage
from tests.postgres_server import OwnServer, new_database

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with OwnServer(fsync="on", full_page_writes="on") as started:
        yield started


@pytest.fixture
def url(server: OwnServer) -> str:
    return new_database(server)


class Work:
    """An executor that counts the calls for each job; they last until they are let go."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.may_end = trio.Event()

    async def __call__(self, ctx: JobContext) -> str:
        self.calls[ctx.job_name] += 1
        current_run().log("begins")
        await self.may_end.wait()
        current_run().log("ends")
        return "done"


def one_shots(count: int) -> list[JobSpec]:
    at = datetime.now(UTC) - timedelta(seconds=1)
    return [JobSpec(f"job {number}", "it", OneShot(at)) for number in range(count)]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.sleep(0.02)


async def all_runs(store: CronStore) -> list[CronRun]:
    while True:
        with suppress(StoreUnavailable):
            return await store.list_runs(limit=1_000)
        await trio.sleep(0.05)


async def until_finished(store: CronStore, count: int) -> list[CronRun]:
    """Wait until there are so many runs and all have ended."""
    while True:
        runs = await all_runs(store)
        if len(runs) >= count and all(run.status.ended for run in runs):
            return runs
        await trio.sleep(0.05)


def changes(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the store has logged of its state."""
    messages = [record.getMessage() for record in caplog.records if record.name == "cronactors.store"]
    return [message.split(":")[0] for message in messages if message.startswith("the store is")]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "immediate", "fast", "pause"])
async def test_runs_that_finish_while_the_server_is_away_are_recorded_once(server, url, caplog, monkeypatch, how):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(store_actor, "LOG_EVERY", 1_000)
    work, count = Work(), 20
    finished: list[str] = []

    async def on_finish(job: CronJob, _run: CronRun) -> None:
        finished.append(job.name)

    config = CronConfig(max_concurrent_runs=count)
    with trio.fail_after(55):
        async with open_scheduler(
            f"{url}&connect_timeout=2", work, jobs=one_shots(count), config=config, on_finish=on_finish
        ) as scheduler:
            await until(lambda: len(work.calls) == count)
            if how == "pause":
                monkeypatch.setattr(connecting, "ANSWER_LIMIT", 0.5)
                await trio.to_thread.run_sync(server.pause)
            else:
                await trio.to_thread.run_sync(server.kill if how == "kill" else lambda: server.stop(how))
            work.may_end.set()
            with pytest.raises(StoreUnavailable):
                await scheduler.store.list_jobs()
            await until(lambda: scheduler.health().last_store_error)
            await trio.sleep(1)
            assert not finished
            monkeypatch.setattr(connecting, "ANSWER_LIMIT", 15)
            await trio.to_thread.run_sync(server.resume if how == "pause" else server.start)
            runs = await until_finished(scheduler.store, count)
            assert [run.status for run in runs] == [RunStatus.SUCCESS] * count
            assert len({run.job_id for run in runs}) == count
            await until(lambda: len(finished) == count)
            assert scheduler.health().last_store_error is None
            job = (await scheduler.store.list_jobs())[0]
            (run,) = await scheduler.store.list_runs(job_id=job.id)
            output = await scheduler.store.get_run_output(run.id)
            assert [line.rstrip() for line in output.text.splitlines()] == ["begins", "ends"]
    assert set(work.calls.values()) == {1}
    assert Counter(finished) == {f"job {number}": 1 for number in range(count)}
    assert changes(caplog) == ["the store is failing", "the store is working again"]


@pytest.mark.slow
async def test_connections_that_are_cut_all_the_time_under_load(server, url, monkeypatch):
    """Nothing is lost and nothing runs twice, whatever statement, commit or idle moment it comes in."""
    work, count, random = Work(), 40, Random(4711)
    work.may_end.set()
    cuts: Counter[str] = Counter()
    wait = connecting.ServerConnection.wait

    def cut(connection: connecting.ServerConnection, *args: Any, **options: Any) -> object:
        how = random.choice(["before", "after", "reply"]) if random.random() < 0.05 else ""
        cuts[how] += 1
        if how == "before":
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])
        result: object = wait(connection, *args, **options)
        if how == "after":
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])
        if how == "reply":
            connection.close()
            raise psycopg.OperationalError("the reply was lost")
        return result

    with trio.fail_after(55), psycopg.connect(server.url(), autocommit=True) as admin:
        async with open_scheduler(url, work, config=CronConfig(max_concurrent_runs=5)) as scheduler:
            monkeypatch.setattr(connecting.ServerConnection, "wait", cut)
            added: set[str] = set()
            refusals: list[str] = []
            for number in range(count):
                while f"job {number}" not in added:
                    try:
                        await scheduler.store.add_job(f"job {number}", "it", OneShot(datetime.now(UTC)))
                    except StoreUnavailable as error:
                        refusals.append(str(error))
                        await trio.sleep(0.02)
                    else:
                        added.add(f"job {number}")
            runs = await until_finished(scheduler.store, count)
            monkeypatch.undo()
    assert not any("which may have been carried out" in refusal for refusal in refusals)
    assert cuts.keys() == {"", "before", "after", "reply"}
    assert [run.status for run in runs] == [RunStatus.SUCCESS] * count
    assert work.calls == {f"job {number}": 1 for number in range(count)}


@pytest.mark.slow
async def test_nothing_spins_while_the_server_is_away(server, url, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    begins: list[float] = []
    attempts: list[float] = []
    begin, connect = PostgresStorage.begin, session.new_connection

    def counted_begin(storage: PostgresStorage, *, write: bool, alone: bool = True) -> bool:
        begins.append(time.monotonic())
        return begin(storage, write=write, alone=alone)

    def counted_connect(parameters: dict[str, str], name: str) -> connecting.ServerConnection:
        attempts.append(time.monotonic())
        return connect(parameters, name)

    async def on_finish(_job: CronJob, _run: CronRun) -> None: ...

    work, count = Work(), 20
    jobs = [*one_shots(count), JobSpec("often", "it", Interval(100))]
    config = CronConfig(max_concurrent_runs=count + 10)
    with trio.fail_after(55):
        async with open_scheduler(url, work, jobs=jobs, config=config, on_finish=on_finish, tick_interval=0.1) as scheduler:
            await until(lambda: len(work.calls) == count + 1)
            await trio.to_thread.run_sync(lambda: server.stop("immediate"))
            work.may_end.set()
            await until(lambda: scheduler.health().last_store_error)
            await trio.sleep(1)  # the first pauses are short
            monkeypatch.setattr(PostgresStorage, "begin", counted_begin)
            monkeypatch.setattr(session, "new_connection", counted_connect)
            caplog.clear()
            await trio.sleep(4)
            monkeypatch.undo()
            said = [record for record in caplog.records if record.levelno > logging.DEBUG]
            await trio.to_thread.run_sync(server.start)
            await until_finished(scheduler.store, count)
    # Each runner, the clock, the patrol, the receivers, their inbox and the output try once a second, heartbeats twice.
    assert len(begins) <= 4 * (count + 5 + 1 / HEARTBEAT_RETRY) * 2
    assert 1 <= len(attempts) <= 8  # every 1 to 2 s, whoever tries
    assert len([record for record in said if record.name == "cronactors.store"]) <= 1
    assert changes(caplog).count("the store is working again") == 1


@pytest.mark.slow
async def test_a_scheduler_can_stop_while_the_server_is_away(server, url, caplog, monkeypatch):
    """What it could not record is interrupted once its lease has run out, and runs again."""
    monkeypatch.setattr(leases, "LEASE", 4_000)
    monkeypatch.setattr(leases, "HEARTBEAT_EVERY", 1_000)
    work = Work()
    with trio.fail_after(55):
        async with open_scheduler(url, work, jobs=one_shots(3), config=CronConfig(shutdown_grace=0, max_concurrent_runs=3)):
            await until(lambda: len(work.calls) == 3)
            await trio.to_thread.run_sync(lambda: server.stop("immediate"))
            stopped_at = trio.current_time()
        took = trio.current_time() - stopped_at
        await trio.to_thread.run_sync(server.start)
        assert took < 3 * 10
        work.may_end.set()
        async with open_scheduler(url, work) as scheduler:
            runs = await until_finished(scheduler.store, 6)
    assert Counter(run.status for run in runs) == {RunStatus.FAILED: 3, RunStatus.SUCCESS: 3}
    assert set(work.calls.values()) == {2}
    assert caplog.text.count("cannot mark beside") == 1


# A scheduler that is stopped while it holds locks


def stopped(url: str, job_id: str) -> subprocess.Popen[str]:
    """Start a process that stops inside a transaction, and wait until it has."""
    command = [sys.executable, "-m", "tests.postgres.stopped_child", url, job_id]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "stopping\n"
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    return child


async def timed(function: Callable[[], Awaitable[object]]) -> float:
    started = trio.current_time()
    await function()
    return trio.current_time() - started


@pytest.mark.slow
async def test_a_scheduler_that_is_stopped_inside_a_transaction_delays_others_by_two_seconds(url):
    limit = 3 * 2.0  # three times idle_in_transaction_session_timeout
    took: dict[str, list[float]] = {"alone": [], "job": [], "beside": []}
    work = Work()
    work.may_end.set()
    with trio.fail_after(55):
        async with open_store(url) as alone, open_store(url) as beside, open_scheduler(url, work) as other:
            ids = [await alone.add_job(f"job {number}", "it", Interval(3_600_000)) for number in range(2)]
            child = await trio.to_thread.run_sync(stopped, url, ids[0])
            try:
                async with trio.open_nursery() as nursery:
                    done = trio.Event()

                    async def add() -> None:
                        while not done.is_set():
                            name = f"new {len(took['beside'])}"
                            took["beside"].append(await timed(partial(beside.add_job, name, "it", Interval(3_600_000))))

                    async def run() -> None:
                        took["job"].append(await timed(partial(other.run_now, ids[0])))

                    nursery.start_soon(add)
                    nursery.start_soon(run)
                    took["alone"].append(await timed(partial(alone.pause_job, ids[1])))
                    await until(lambda: took["job"])
                    done.set()
            finally:
                child.send_signal(signal.SIGCONT)
            output, _ = await trio.to_thread.run_sync(child.communicate)
            assert output == "Locked\n"  # the server has ended its transaction
            assert (await alone.get_job(ids[0])).prompt == "it"
    assert took["alone"][0] > 0.2  # it was in the way
    assert len(took["beside"]) > 5
    assert {name: max(times) < limit for name, times in took.items()} == {"alone": True, "job": True, "beside": True}, took
