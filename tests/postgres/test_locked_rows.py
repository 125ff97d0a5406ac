"""Somebody's open transaction locks the row of one job: its finish waits, the others get through, and the log says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
import trio

from cronactors.actors import store as store_module
from cronactors.actors.mailbox import Mailbox, Request
from cronactors.storage.rows import RunRow
from tests.ledger_world import MINUTE, World
from tests.postgres.two_connections import claim, finish
from tests.postgres_store import TimedPostgres, in_postgres, worker_database
from tests.store_under_test import serving

RUNS = 8


@pytest.fixture
def world() -> Iterator[World]:
    """A world that gives up sooner, so that a test takes less than a second."""
    with closing(World(in_postgres)) as made:
        assert isinstance(made.storage, TimedPostgres)
        made.storage._session.script("SET lock_timeout = '50ms'")
        yield made


def running(world: World, count: int) -> list[RunRow]:
    for _ in range(count):
        world.add()
    world.pass_time(MINUTE)
    return [claimed.run for claimed in world.claim(limit=count)]


def lock(connection: psycopg.Connection[tuple[object, ...]], world: World, *runs: RunRow) -> None:
    """Lock the rows of the jobs of runs until the transaction of this connection ends."""
    assert isinstance(world.storage, TimedPostgres)
    job_ids = [run.job_id for run in runs]
    connection.execute(f"SELECT 1 FROM {world.storage.schema}.job_state WHERE id = ANY(%s) FOR UPDATE", [job_ids])


async def call(mailbox: Mailbox, request: Request[object], replied: trio.MemorySendChannel[object]) -> None:
    replied.send_nowait(await mailbox.call(request))


@pytest.mark.parametrize("locked", [[0], [RUNS - 1], [2, 5]])
async def test_a_finish_whose_job_is_locked_does_not_hold_up_the_others(
    world: World, monkeypatch, caplog, locked: list[int]
) -> None:
    monkeypatch.setattr(store_module, "LOCK_TIMEOUT", 0.1)
    caplog.set_level(logging.WARNING, "cronactors.store")
    runs = running(world, RUNS)
    stuck = [runs[number] for number in locked]
    sent, replies = trio.open_memory_channel[object](RUNS + 1)
    with trio.fail_after(60), psycopg.connect(worker_database()) as somebody:
        lock(somebody, world, *stuck)
        async with serving(world.storage) as (mailbox, actor), trio.open_nursery() as nursery:
            for run in runs:
                nursery.start_soon(call, mailbox, finish(world, run), sent)
            for _ in range(RUNS - len(stuck)):
                await replies.receive()
            assert actor.postponed == len(stuck)
            await mailbox.call(claim(world.owner))  # neither are others that come later
            assert actor.last_error is not None
            assert [record.getMessage() for record in caplog.records] == [f"the store is failing: {actor.last_error}"]
            somebody.rollback()
            for _ in stuck:
                await replies.receive()
            assert actor.last_error is None
    assert [record.getMessage() for record in caplog.records][1:] == ["the store is working again"]
    assert {run.status for run in world.history()} == {"success"}
