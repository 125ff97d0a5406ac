"""Notices are sent after the commit that they are about, and whatever becomes of them, it has happened."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from typing import cast

import psycopg
import pytest

from cronactors import Interval, JobContext, RunStatus, open_scheduler
from cronactors.actors.mailbox import Request
from cronactors.actors.store import Done, run_batch
from cronactors.actors.user_requests import AddJobs
from cronactors.ids import new_ids
from cronactors.spec import Delay, JobSpec
from cronactors.storage.postgres import connecting, storage as storage_module
from cronactors.storage.postgres.storage import NOTIFY, PostgresStorage
from tests.ledger_world import DEFAULTS
from tests.postgres.injection import at_statement, made_up, raise_at
from tests.postgres_server import OwnServer, new_database, shared_server

SINCE_17 = 170_000


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresStorage]:
    monkeypatch.setattr(storage_module, "NOTIFY_AGAIN", 0)
    monkeypatch.setattr(storage_module, "NOTIFY_EVERY", 0)
    with closing(PostgresStorage(new_database(shared_server()), schema="cronactors")) as opened:
        yield opened


def add(storage: PostgresStorage) -> None:
    """Add a job that is due soon, of which others are notified."""
    (job_id,) = new_ids(1)
    request = AddJobs(((job_id, JobSpec("job", "it", Delay(0.001))),), DEFAULTS)
    assert isinstance(run_batch(storage, [cast("Request[object]", request)]), Done)


@pytest.mark.parametrize("sqlstate", ["54000", "55P03", "22P02", "57P01", None])
def test_a_notice_that_fails_undoes_nothing(storage: PostgresStorage, sqlstate: str | None) -> None:
    raise_at(storage, NOTIFY, made_up(sqlstate))
    add(storage)
    assert jobs_of_others(storage) == 1


def jobs_of_others(storage: PostgresStorage) -> object:
    """How many jobs another connection sees."""
    with storage._session.connect_apart() as other:
        (row,) = other.execute("SELECT count(*) FROM cronactors.jobs").fetchall()
    return row[0]


def test_notices_that_fail_are_logged_once_for_each_change(storage: PostgresStorage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "cronactors.store")
    for _ in range(2):
        raise_at(storage, NOTIFY, made_up("54000"))
        add_again(storage)
    add_again(storage)
    add_again(storage)
    messages = [record.getMessage().split(": ")[1] for record in caplog.records if "notified" in record.getMessage()]
    assert len(messages) == 2
    assert messages[0].startswith("others are not notified now")
    assert messages[1] == "others are notified again"


def add_again(storage: PostgresStorage) -> None:
    storage.begin(write=True)
    storage._must_notify = True
    storage.commit()


def test_after_a_notice_that_failed_the_next_waits(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "NOTIFY_AGAIN", 1_000)
    raise_at(storage, NOTIFY, made_up("54000"))
    add_again(storage)
    sent: list[str] = []
    at_statement(storage, NOTIFY, lambda: sent.append("again"))
    add_again(storage)
    assert not sent


def test_a_notice_that_is_not_answered_is_not_waited_for(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a transaction of somebody else whose notice waits for a standby: that holds a lock of the whole server."""
    monkeypatch.setattr(storage_module, "NOTIFY", "SELECT pg_sleep(9), $1::text, $2::text")
    began = time.monotonic()
    add_again(storage)
    assert time.monotonic() - began < 3 * storage_module.NOTIFY_LIMIT
    assert not storage._session.connected
    assert storage._session.patience.longest > connecting.ANSWER_LIMIT


async def test_a_queue_of_notices_that_is_full_ends_no_scheduler() -> None:
    """Somebody listens and stays in a transaction. Then the server refuses the commit of each transaction with a notice."""
    with psycopg.connect(shared_server().url()) as connection:
        if connection.info.server_version < SINCE_17:
            pytest.skip("its length can be set since PostgreSQL 17")
    with OwnServer(max_notify_queue_pages="64") as server:
        url = new_database(server)
        with psycopg.connect(server.url()) as slow, psycopg.connect(server.url(), autocommit=True) as other:
            slow.execute("LISTEN x")
            slow.commit()
            slow.execute("SELECT 1")
            with pytest.raises(psycopg.Error, match="NOTIFY queue"):
                while True:
                    other.execute("SELECT pg_notify('x', repeat('a', 7000) || random()) FROM generate_series(1, 10)")

            async def executor(ctx: JobContext) -> str:
                return ctx.job_name

            async with open_scheduler(url, executor) as scheduler:
                run = await scheduler.run_now(await scheduler.store.add_job("job", "it", Interval(3_600_000)))
                assert run.status is RunStatus.SUCCESS
