"""Notices of other schedulers: a job that is added on one machine starts on another at its moment, long before the tick."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import trio

from cronactors import Interval, JobContext, OneShot, RunStatus, open_scheduler, open_store
from cronactors.actors import patrol as patrol_module
from cronactors.storage.postgres import listener as listener_module
from cronactors.storage.postgres.storage import PostgresStorage
from tests.postgres_server import new_database, shared_server

SLOW_TICK = 60.0
BOUND = 0.1
"""A job that is added on one machine starts on another within this time (s) of its moment; asserted at three times that."""


@pytest.fixture
def url() -> str:
    return new_database(shared_server())


async def until(holds: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not holds():
            await trio.sleep(0.01)


def listeners(url: str) -> list[int]:
    """Return the process ids of the backends that listen."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'cronactors%'"
            " AND pid <> pg_backend_pid() AND (query LIKE 'LISTEN%' OR query LIKE '%pg_notify(%' OR query = 'SELECT 1') AND state = 'idle'"
        )
        return [pid for (pid,) in rows]


class Lateness:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, ctx: JobContext) -> None:
        self.seconds.append((datetime.now(UTC) - ctx.scheduled_at).total_seconds())


async def test_a_job_that_is_added_elsewhere_starts_at_its_moment(url: str) -> None:
    lateness = Lateness()
    async with open_scheduler(url, lateness, tick_interval=SLOW_TICK), open_store(url) as elsewhere:
        await until(lambda: listeners(url))
        for number in range(5):
            await elsewhere.add_job(f"job {number}", "now", OneShot(datetime.now(UTC) + timedelta(seconds=0.05)))
            await until(lambda number=number: len(lateness.seconds) > number)
    assert max(lateness.seconds) < 3 * BOUND


async def test_a_run_is_cancelled_from_elsewhere_before_the_tick(url: str) -> None:
    started = trio.Event()

    async def executor(ctx: JobContext) -> None:
        started.set()
        await trio.sleep_forever()

    async with open_scheduler(url, executor, tick_interval=SLOW_TICK) as scheduler, open_store(url) as elsewhere:
        await until(lambda: listeners(url))
        await elsewhere.add_job("job", "now", OneShot(datetime.now(UTC)))
        with trio.fail_after(10):
            await started.wait()
            (run,) = await elsewhere.list_runs()
            await elsewhere.request_cancel(run.id)
            while (await scheduler.store.get_run(run.id)).status is RunStatus.RUNNING:
                await trio.sleep(0.01)


async def test_without_notices_the_tick_finds_everything(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PostgresStorage, "listen", lambda *_: nullcontext())
    lateness = Lateness()
    async with open_scheduler(url, lateness, tick_interval=0.2), open_store(url) as elsewhere:
        await elsewhere.add_job("job", "now", OneShot(datetime.now(UTC)))
        await until(lambda: lateness.seconds)
    assert not listeners(url)


async def test_a_listener_that_lost_its_connection_comes_back(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cronactors.store")
    lateness = Lateness()
    async with open_scheduler(url, lateness, tick_interval=SLOW_TICK), open_store(url) as elsewhere:
        await until(lambda: listeners(url))
        (before,) = listeners(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", [before])
        await until(lambda: listeners(url) not in ([], [before]))
        await until(lambda: "are heard again" in caplog.text)
        await elsewhere.add_job("job", "now", OneShot(datetime.now(UTC)))
        await until(lambda: lateness.seconds)
    assert caplog.text.count("are not heard now") == 1


async def test_where_nothing_can_be_heard_the_store_is_read_more_often(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a pooler in transaction mode: the LISTEN is on a connection that the pooler gives to somebody else."""
    hears: list[bool] = []
    test = listener_module.Listener._test
    monkeypatch.setattr(listener_module.Listener, "_test", lambda self, connection: bool(hears) and test(self, connection))
    monkeypatch.setattr(listener_module, "TEST_AGAIN", 0.1)
    monkeypatch.setattr(patrol_module, "DEAF_TICK", 0.1)
    caplog.set_level(logging.INFO, "cronactors.store")
    lateness = Lateness()
    async with open_scheduler(url, lateness, tick_interval=SLOW_TICK) as scheduler, open_store(url) as elsewhere:
        await until(lambda: "no notices of other schedulers are heard" in caplog.text)
        await elsewhere.add_job("job", "now", OneShot(datetime.now(UTC)))
        await until(lambda: lateness.seconds)
        assert scheduler._actors.patrol._tick_interval == 0.1
        hears.append(True)
        await until(lambda: "are heard again" in caplog.text)
        await until(lambda: scheduler._actors.patrol._tick_interval == SLOW_TICK)
        await elsewhere.add_job("another", "now", OneShot(datetime.now(UTC)))
        await until(lambda: len(lateness.seconds) == 2)
    assert caplog.text.count("no notices of other schedulers are heard") == 1


async def test_a_scheduler_that_ends_stops_to_listen_at_once(url: str) -> None:
    async with open_scheduler(url, Lateness(), tick_interval=SLOW_TICK) as scheduler:
        await scheduler.store.add_job("job", "later", Interval(3_600_000))
        await until(lambda: listeners(url))
    assert not listeners(url)


@pytest.mark.parametrize("waits_in", ["connect", "notify"])
def test_a_listener_that_tests_itself_is_not_waited_for(url: str, waits_in: str) -> None:
    """Its second connection gets no answer, as behind a pooler all of whose connections are taken. `stop` is called in the event loop."""
    seconds, waits, answers = iter((False, True)), threading.Event(), threading.Event()

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        is_second = next(seconds)
        if is_second and waits_in == "connect":
            waits.set()
            answers.wait(10)
        connection = psycopg.connect(url, autocommit=True)
        if is_second and waits_in == "notify":
            execute = connection.execute
            connection.execute = lambda *_: execute("SELECT pg_sleep(10)")  # type: ignore[assignment]
            waits.set()
        return connection

    listener = listener_module.Listener(connect, "channel", own="own", name="store", heard=nothing, deaf=nothing)
    listener.start()
    assert waits.wait(10)
    if waits_in == "notify":
        with psycopg.connect(url, autocommit=True) as other:
            while not other.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'").fetchall():
                time.sleep(0.01)
    began = time.monotonic()
    listener.stop()
    assert time.monotonic() - began < 10 * listener_module._JOIN_LIMIT
    answers.set()
    listener._thread.join(5)
    assert not listener._thread.is_alive()
    assert listener._sockets == []


def nothing(*_: object) -> None:
    pass
