"""A stop keeps its promise while the server commits nothing."""

from __future__ import annotations

import time

import psycopg
import pytest
import trio

from cronactors import Interval, JobContext, StoreUnavailable, open_scheduler, open_store
from cronactors.actors import stopping
from tests.postgres_server import OwnServer, new_database

LIMIT = 2.0


@pytest.mark.slow
@pytest.mark.parametrize("own_store", [True, False])
async def test_a_stop_ends_in_time_while_commits_hang(monkeypatch: pytest.MonkeyPatch, own_store: bool) -> None:
    """As with a standby that is away."""
    monkeypatch.setattr(stopping, "STOP_LIMIT", LIMIT)
    monkeypatch.setattr(stopping, "AFTER_GRACE", LIMIT)

    async def executor(_: JobContext) -> None:
        pass

    with OwnServer() as server, psycopg.connect(server.url(), autocommit=True) as admin:
        url = new_database(server)
        async with open_store(url) as store:
            async with open_scheduler(url if own_store else store, executor, shutdown_grace=0) as scheduler:
                await scheduler.store.add_job("job", "it", Interval(200))
                while not await scheduler.store.list_runs():
                    await trio.sleep(0.01)
                admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
                admin.execute("SELECT pg_reload_conf()")
                with trio.fail_after(10):
                    while not admin.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchall():
                        await trio.sleep(0.01)
                began = time.monotonic()
            assert time.monotonic() - began < 3 * LIMIT
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")
            with trio.fail_after(30):
                while True:
                    try:
                        await store.add_job("after", "it", Interval(1_000_000))
                        break
                    except StoreUnavailable:
                        await trio.sleep(0.05)
        assert store._service.storage._session.patience.until() > time.monotonic() + 1_000  # type: ignore[attr-defined]


@pytest.mark.slow
async def test_a_stop_ends_in_time_while_the_server_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no connection can be made either."""
    monkeypatch.setattr(stopping, "STOP_LIMIT", LIMIT)
    monkeypatch.setattr(stopping, "AFTER_GRACE", LIMIT)
    runs, may_end = trio.Event(), trio.Event()

    async def executor(_: JobContext) -> None:
        runs.set()
        await may_end.wait()

    with OwnServer() as server:
        try:
            async with open_scheduler(new_database(server), executor, shutdown_grace=0) as scheduler:
                await scheduler.store.add_job("job", "it", Interval(200))
                await runs.wait()
                server.pause()
                began = time.monotonic()
            assert time.monotonic() - began < 3 * LIMIT
        finally:
            server.resume()
