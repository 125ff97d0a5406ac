"""A store behind a pooler in transaction mode."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import trio
from psycopg.conninfo import conninfo_to_dict

from cronactors import CronConfig, Interval, JobContext, JobSpec, StoreUnavailable, open_scheduler
from cronactors.actors.store import Done, run_batch
from cronactors.storage.postgres.storage import PostgresStorage
from tests.postgres.injection import COMMIT, made_up, raise_at
from tests.postgres.roles import with_parameters
from tests.postgres.transaction_pooler import SOCKET, transaction_pooler
from tests.postgres_server import OwnServer, new_database
from tests.store_under_test import Names, Put


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with OwnServer() as started:
        yield started


@pytest.fixture
def pooled(server: OwnServer) -> Iterator[str]:
    """The URL of a database behind a pooler."""
    url = new_database(server)
    with tempfile.TemporaryDirectory() as folder, transaction_pooler(Path(folder), f"{conninfo_to_dict(url)['host']}/{SOCKET}"):
        yield with_parameters(url, host=folder)


def test_the_pooler_of_these_tests_changes_connections(pooled):
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as connection:
        pids = [connection.execute("SELECT pg_backend_pid()").fetchall() for _ in range(4)]
        assert pids[0] == pids[2] != pids[1] == pids[3]
        assert connection.info.backend_pid not in {pid for ((pid,),) in pids}
        connection.execute("BEGIN")
        assert len({str(connection.execute("SELECT pg_backend_pid()").fetchall()) for _ in range(4)}) == 1
        connection.execute("COMMIT")


def test_statements_do_not_depend_on_the_connection(pooled):
    with closing(PostgresStorage(pooled, schema="cronactors")) as storage:
        for number in range(5):
            assert isinstance(run_batch(storage, [Put(str(number)), Put(f"{number} too")]), Done)
            result = run_batch(storage, [Names()])
            assert isinstance(result, Done)
        assert len(result.replies[0]) == 10
        storage._session.close()
        assert isinstance(run_batch(storage, [Put("after a new connection")]), Done)


def test_the_settings_are_in_force_in_a_transaction_and_leave_no_trace(pooled):
    with closing(PostgresStorage(pooled, schema="cronactors")) as storage:
        for write in (True, False, True):
            assert storage.begin(write=write)
            shown = storage._session.script("SHOW lock_timeout; SHOW idle_in_transaction_session_timeout; SHOW plan_cache_mode")
            assert shown == [("200ms",), ("2s",), ("force_generic_plan",)]
            storage.commit()
        for _ in range(2):
            left = storage._session.script("SHOW lock_timeout; SHOW statement_timeout; SHOW plan_cache_mode")
            assert left == [("0",), ("0",), ("auto",)]
            assert storage._session.script("SELECT count(*) FROM pg_prepared_statements") == [(0,)]


async def test_a_whole_scheduler(pooled):
    calls: Counter[str] = Counter()

    async def executor(ctx: JobContext) -> None:
        calls[ctx.job_name] += 1
        if ctx.job_name == "fails" and ctx.attempt == 1:
            raise ValueError("fails")

    jobs = [JobSpec("often", "it", Interval(100)), JobSpec("fails", "it", Interval(100), max_retries=0)]
    with trio.fail_after(30):
        async with open_scheduler(pooled, executor, jobs=jobs, config=CronConfig(max_concurrent_runs=2)) as scheduler:
            while min(calls["often"], calls["fails"]) < 5:
                await trio.sleep(0.02)
            job_id = await scheduler.store.add_job("by hand", "it", Interval(3_600_000))
            await scheduler.run_now(job_id)
            await scheduler.store.remove_job(job_id)
            assert scheduler.health().last_store_error is None


def test_the_life_of_the_server_is_that_of_the_transaction(pooled):
    """Not that in which the connection to the pooler was made: it outlives the server."""
    with closing(PostgresStorage(pooled, schema="cronactors")) as storage:
        before = storage._session._life
        storage._execute("UPDATE @server_life SET life = 'after a crash'")
        assert storage.begin(write=True)
        assert storage._session._life == "after a crash" != before
        storage.rollback()
        storage._execute("DELETE FROM @server_life")
        assert storage.begin(write=True)
        assert storage._session._life is None
        raise_at(storage, COMMIT, made_up(None), carry_out=True)
        with pytest.raises(StoreUnavailable, match="which may have been carried out"):
            storage.commit()
        storage.rollback()
