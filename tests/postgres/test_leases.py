"""Leases of machines that share a server: who cannot renew its lease stops its runs before others may start them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import psycopg
import pytest
import trio

from cronactors import CronConfig, JobContext, OneShot, RunStatus, open_scheduler, open_store
from cronactors.actors import lease_guard
from cronactors.ledger import leases
from tests.postgres_server import OwnServer, new_database, shared_server


@pytest.mark.slow
async def test_who_cannot_reach_the_server_cancels_its_runs_before_the_lease_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "LEASE", 4_000)
    monkeypatch.setattr(leases, "HEARTBEAT_EVERY", 1_000)
    monkeypatch.setattr(lease_guard, "BEFORE_THE_END", 2.0)
    cancelled_after: list[float] = []
    started = trio.Event()

    async def executor(ctx: JobContext) -> None:
        began = trio.current_time()
        started.set()
        try:
            await trio.sleep(60)
        finally:
            if not cancelled_after:
                cancelled_after.append(trio.current_time() - began)

    with OwnServer() as server:
        url = new_database(server)
        with trio.fail_after(60):
            async with open_scheduler(url, executor, config=CronConfig(shutdown_grace=0)) as scheduler:
                job_id = await scheduler.store.add_job("job", "it", OneShot(datetime.now(UTC)))
                await started.wait()
                server.pause()
                while not cancelled_after:
                    await trio.sleep(0.05)
                server.resume()
                while len(runs := await scheduler.store.list_runs(job_id=job_id)) < 2:
                    await trio.sleep(0.05)
    assert cancelled_after[0] < 3 * 4
    assert [(run.status, run.cause) for run in runs][1] == (RunStatus.FAILED, "interrupted")
    assert runs[0].attempt == 2
    assert caplog.text.count("the store is out of reach, and the lease ends") == 1


async def test_a_scheduler_whose_runs_were_taken_over_cancels_them_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a stop for longer than the lease. Here another process says that the lease has run out, though it has not."""
    caplog.set_level(logging.WARNING)
    url = new_database(shared_server())
    attempts: list[int] = []
    cancelled = trio.Event()

    async def executor(ctx: JobContext) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

    async with open_scheduler(url, executor, tick_interval=0.05) as scheduler, open_store(url) as elsewhere:
        await scheduler.store.add_job("job", "it", OneShot(datetime.now(UTC)))
        with trio.fail_after(20):
            while not attempts:
                await trio.sleep(0.01)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("UPDATE cronactors.owners SET lease_until = 1")
            monkeypatch.setattr(elsewhere._service.lease_trust, "trusted", lambda: True)
            recovered = await elsewhere._service.recover(CronConfig().retry)
            assert [run.attempt for run in recovered] == [1]
            await cancelled.wait()
            while attempts != [1, 2]:
                await trio.sleep(0.01)
            await scheduler.store.add_job("next", "it", OneShot(datetime.now(UTC)))
            while len(attempts) < 3:
                await trio.sleep(0.01)
    assert caplog.text.count("its runs were taken over") == 1
