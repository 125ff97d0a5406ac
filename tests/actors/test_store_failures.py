"""The store actor on a locked file, after a bug, and at its end: every caller gets a reply."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cronactors import JobContext, OneShot, open_scheduler, open_store
from cronactors.actors import mailbox as mailbox_module, store as store_module
from cronactors.actors.storage_thread import StorageThread, T
from cronactors.errors import CronError, SchedulerClosed, SchedulerCrashed, StoreUnavailable
from cronactors.storage.protocol import Storage
from tests.store_under_test import (
    Bug,
    Callers,
    CountedFake,
    CountedSqlite,
    GatedHop,
    Names,
    Put,
    RefusedInBatch,
    WaitsForever,
    calling,
    serving,
)


@pytest.fixture(params=["fake", "sqlite"])
def storage(request):
    if request.param == "fake":
        yield CountedFake()
        return
    sqlite = CountedSqlite()
    yield sqlite
    sqlite.close()


# Locked files


async def test_a_request_for_a_locked_file_is_carried_out_after_the_release(autojump_clock):
    storage = CountedFake()
    storage.locked = True
    async with calling(storage) as callers:
        await callers.call(Put("a"), Put("b"))
        await trio.sleep(store_module.LOCK_TIMEOUT - 1)
        assert callers.replies == {}
        storage.locked = False
        await trio.sleep(1)
        assert callers.replies == {"a": "A", "b": "B"}


async def test_a_request_for_a_locked_file_times_out_without_effect(autojump_clock):
    storage = CountedFake()
    storage.locked = True
    async with serving(storage) as (mailbox, actor):
        started = trio.current_time()
        with pytest.raises(StoreUnavailable, match="locked by other processes for 30 s"):
            await mailbox.call(Put("a"))
        assert store_module.LOCK_TIMEOUT <= trio.current_time() - started < store_module.LOCK_TIMEOUT + 1
        assert actor.last_error is not None
        storage.locked = False
        assert await mailbox.call(Put("b")) == "B"
        assert await mailbox.call(Names()) == ["b"]


async def test_a_request_that_waits_forever_does_not_time_out(autojump_clock):
    storage = CountedFake()
    storage.locked = True
    async with calling(storage) as callers:
        await callers.call(Put("a"), WaitsForever("p"))
        await trio.sleep(10 * store_module.LOCK_TIMEOUT)
        assert list(callers.replies) == ["a"]
        assert isinstance(callers.replies["a"], StoreUnavailable)
        storage.locked = False
        await trio.sleep(1)
        assert callers.replies["p"] == "P"


async def test_a_request_that_waits_forever_is_reported_once_it_has_waited_too_long(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(store_module, "LOCK_TIMEOUT", 0.1)
    storage = CountedSqlite(str(tmp_path / "agent.db"))
    with contextlib.closing(storage), contextlib.closing(sqlite3.connect(tmp_path / "agent.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        async with serving(storage) as (mailbox, actor), trio.open_nursery() as nursery:
            callers = Callers(nursery, mailbox)
            with trio.fail_after(30):
                nursery.start_soon(callers.call, WaitsForever("p"))
                while actor.last_error is None:
                    await trio.sleep(0.01)
                reported_at = len(storage.log)
                while storage.log[reported_at:].count("locked") < 3:
                    await trio.sleep(0.01)
                assert callers.replies == {}
                assert caplog.messages == [f"the store is failing: {storage.name} was locked by other processes for 0 s"]
                other.rollback()
                while not callers.replies:
                    await trio.sleep(0.01)
        assert callers.replies == {"p": "P"}
        assert caplog.messages[1:] == ["the store is working again"]
        assert actor.last_error is None


async def test_other_requests_time_out_behind_one_that_waits_forever(autojump_clock):
    storage = CountedFake()
    storage.locked = True
    async with calling(storage) as callers:
        await callers.call(WaitsForever("p"))
        await trio.sleep(1)
        await callers.call(Put("a"))
        await trio.sleep(2 * store_module.LOCK_TIMEOUT)
        reply = callers.replies.get("a")
        storage.locked = False
    assert isinstance(reply, StoreUnavailable)


async def test_a_write_that_waits_for_the_lock_does_not_delay_reads(autojump_clock):
    storage = CountedFake()
    storage.locked = True
    async with calling(storage) as callers:
        await callers.call(Put("a"))
        await trio.sleep(1)
        await callers.call(Names())
        await trio.sleep(1)
        reply = callers.replies.get("names")
        storage.locked = False
    assert reply == []


async def test_more_waiting_requests_than_a_batch_holds_delay_neither_reads_nor_timeouts(autojump_clock, monkeypatch):
    monkeypatch.setattr(store_module, "BATCH", 5)
    monkeypatch.setattr(mailbox_module, "CAPACITY", 10)
    storage = CountedFake()
    storage.locked = True
    waits_forever = [WaitsForever(f"p{number:02}") for number in range(23)]
    async with serving(storage) as (mailbox, actor), trio.open_nursery() as nursery:
        callers = Callers(nursery, mailbox)
        await callers.call(*waits_forever)
        await trio.sleep(1)
        await callers.call(Names(), Put("a"), Put("b"))
        await trio.sleep(1)
        assert callers.replies == {"names": []}
        assert actor.postponed == 25
        callers.scopes["b"].cancel()
        await trio.sleep(store_module.LOCK_TIMEOUT)
        assert callers.scopes["b"].cancelled_caught
        assert isinstance(callers.replies.pop("a"), StoreUnavailable)
        storage.locked = False
        await trio.sleep(1)
        await callers.call(Names())
    stored = callers.replies.pop("names")
    assert stored == [request.name for request in waits_forever]
    order = list(callers.replies)
    assert [sorted(order[n : n + 5]) for n in range(0, 23, 5)] == [stored[n : n + 5] for n in range(0, 23, 5)]
    assert storage.log.count("write") == 5  # 5 + 5 + 5 + 5 + 3


@asynccontextmanager
async def locked_file(path: Path) -> AsyncIterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def test_a_file_that_another_connection_has_locked_is_tried_again_until_the_timeout(tmp_path, monkeypatch):
    hops = 0
    attempt = StorageThread.__call__

    async def counted(self: StorageThread, function: Callable[[], T]) -> T:
        nonlocal hops
        hops += 1
        return await attempt(self, function)

    file = tmp_path / "agent.db"
    async with open_store(file) as store:
        monkeypatch.setattr(StorageThread, "__call__", counted)
        async with trio.open_nursery() as nursery, locked_file(file) as other:
            with trio.fail_after(30):
                assert await store.list_jobs() == []  # a read needs no lock
                assert hops == 1
                nursery.start_soon(store.add_job, "a", "p", OneShot("2999-01-01T00:00:00"))
                while hops < 4:  # it was tried again
                    await trio.sleep(0.01)
                other.execute("COMMIT")
        assert [job.name for job in await store.list_jobs()] == ["a"]
        monkeypatch.setattr(store_module, "LOCK_TIMEOUT", 0.05)
        async with locked_file(file):
            with trio.fail_after(30), pytest.raises(StoreUnavailable, match="locked"):
                await store.add_job("b", "p", OneShot("2999-01-01T00:00:00"))
            assert [job.name for job in await store.list_jobs()] == ["a"]
        await store.add_job("c", "p", OneShot("2999-01-01T00:00:00"))
        assert [job.name for job in await store.list_jobs()] == ["a", "c"]


# Bugs


def bug_of(error: BaseException) -> BaseException | None:
    """The bug in the exception of a store actor's nursery."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, SchedulerCrashed)
    return error.__cause__


async def test_after_a_bug_every_caller_gets_an_error(storage, monkeypatch):
    """Those in the batch, those in the mailbox, and those that wait for room in it."""
    monkeypatch.setattr(mailbox_module, "CAPACITY", 4)
    monkeypatch.setattr(store_module, "BATCH", 3)
    hop = GatedHop()
    hop.before = trio.Event()
    with trio.fail_after(60), pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as tasks, serving(storage, hop) as (mailbox, _):
            callers = Callers(tasks, mailbox)
            await callers.call(Put("first"), Put("a"), Bug("bug"), Put("b"), Put("in the mailbox"), Put("in front"))
            callers.scopes["b"].cancel()
            await callers.call(Put("in front too"))
            assert mailbox._send.statistics().current_buffer_used == 4
            tasks.cancel_scope.shield = True  # the tasks wait for the end of the store, not of the test
            hop.open()
            await trio.sleep_forever()
    assert isinstance(bug_of(caught.value), ZeroDivisionError)
    replies = callers.replies
    assert replies.pop("first") == "FIRST"
    assert sorted(replies) == ["a", "bug", "in front", "in front too", "in the mailbox"]
    assert callers.scopes["b"].cancelled_caught
    for error in replies.values():
        assert isinstance(error, SchedulerCrashed)
    assert isinstance(replies["a"].__cause__, ZeroDivisionError)
    assert storage.begin(write=False)
    assert [row.machine for row in storage.owners()] == ["first"]
    storage.rollback()


async def test_a_batch_request_that_refuses_is_a_bug(storage):
    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(storage) as (mailbox, _):
            with pytest.raises(SchedulerCrashed):
                await mailbox.call(RefusedInBatch("a"))
            await trio.sleep_forever()
    assert isinstance(bug_of(caught.value), AssertionError)
    assert storage.log[-1] == "rollback"


@pytest.mark.parametrize("opened_by", ["open_store", "open_scheduler"])
async def test_a_bug_in_the_store_is_raised_as_scheduler_crashed(tmp_path, monkeypatch, opened_by):
    async def executor(ctx: JobContext) -> None:
        pass

    def apply(self: object, storage: Storage) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("cronactors.actors.user_requests.PauseJob.apply", apply)
    file = tmp_path / "agent.db"
    inside: list[BaseException] = []
    with trio.fail_after(30), pytest.raises(SchedulerCrashed) as caught:
        async with open_store(file) if opened_by == "open_store" else open_scheduler(file, executor) as opened:
            store = getattr(opened, "store", opened)
            try:
                await store.pause_job("x")
            except CronError as error:
                inside.append(error)
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert isinstance(inside[0], SchedulerCrashed)
    with pytest.raises(SchedulerCrashed):
        await store.list_jobs()


# The end


async def test_closing_carries_out_the_requests_in_the_mailbox_and_refuses_later_ones(storage):
    hop = GatedHop()
    hop.before = trio.Event()
    async with trio.open_nursery() as tasks:
        async with serving(storage, hop) as (mailbox, _):
            callers = Callers(tasks, mailbox)
            await callers.call(Put("a"), Put("b"), Put("c"))
        with pytest.raises(SchedulerClosed):
            await mailbox.call(Put("late"))
    assert callers.replies == {"a": "A", "b": "B", "c": "C"}
    assert storage.log == ["write", "commit"] * 2


async def test_a_closed_store_names_its_file_in_the_error(tmp_path):
    async with open_store(tmp_path / "agent.db") as store:
        await store.list_jobs()
    with pytest.raises(SchedulerClosed, match=r"agent\.db"):
        await store.list_jobs()
