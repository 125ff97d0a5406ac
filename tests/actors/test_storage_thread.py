"""The storage thread: results, order, its end, and the heartbeats that it gives in between."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest
import trio

from cronactors import JobContext, open_scheduler, open_store
from cronactors.actors import watchdog
from cronactors.actors.storage_thread import StorageThread, in_place, storage_thread
from cronactors.ledger import leases


def storage_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cronactors-storage"]


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_EVERY", 20)


class Heartbeat:
    """Counts heartbeats, and records the threads that gave them."""

    def __init__(self) -> None:
        self.count = 0
        self.threads: set[int] = set()

    def __call__(self) -> bool:
        self.count += 1
        self.threads.add(threading.get_ident())
        return True

    async def reach(self, count: int) -> None:
        with trio.fail_after(20):
            while self.count < count:
                await trio.sleep(0.005)


async def test_a_function_is_called_on_the_thread_and_its_result_returned():
    async with storage_thread() as thread:
        here, there = threading.get_ident(), await thread(threading.get_ident)
        assert there != here
        assert {await thread(threading.get_ident) for _ in range(5)} == {there}
        assert await thread(lambda: None) is None


@pytest.mark.parametrize("error", [ZeroDivisionError("no"), KeyboardInterrupt("no"), trio.TooSlowError("no")])
async def test_an_exception_is_raised_as_itself_and_the_thread_keeps_working(error):
    def fail() -> None:
        raise error

    async with storage_thread() as thread:
        with pytest.raises(type(error)) as caught:
            await thread(fail)
        assert caught.value is error
        assert await thread(lambda: 1) == 1


async def test_functions_are_called_one_at_a_time_in_the_order_of_the_calls():
    seen: list[str] = []

    def work(name: str) -> None:
        seen.append(f"{name} starts")
        time.sleep(0.005)  # so that another thread, if there were one, would come in between
        seen.append(f"{name} ends")

    async def give(name: str) -> None:
        given.append(name)
        await thread(lambda: work(name))

    given: list[str] = []
    async with storage_thread() as thread, trio.open_nursery() as nursery:
        for name in "abcdef":
            nursery.start_soon(give, name)
    assert seen == [f"{name} {step}" for name in given for step in ("starts", "ends")]


async def test_a_function_that_has_started_cannot_be_cancelled():
    started, proceed = threading.Event(), threading.Event()
    results: list[str] = []

    def work() -> str:
        started.set()
        assert proceed.wait(20)
        return "done"

    async def give() -> None:
        results.append(await thread(work))

    async with storage_thread() as thread:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(give)
                while not started.is_set():
                    await trio.sleep(0.001)
                nursery.cancel_scope.cancel()
                proceed.set()
    assert results == ["done"]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_thread_has_ended_after_the_block(cancelled):
    before = storage_threads()
    with trio.move_on_after(20) as scope:
        async with storage_thread() as thread:
            await thread(lambda: None)
            assert len(storage_threads()) == len(before) + 1
            if cancelled:
                scope.cancel()
                await trio.lowlevel.checkpoint()
    assert storage_threads() == before


async def test_the_thread_ends_after_an_exception_of_the_block():
    before = storage_threads()
    with pytest.raises(ZeroDivisionError):
        async with storage_thread():
            raise ZeroDivisionError
    assert storage_threads() == before


@pytest.mark.parametrize("how", ["end", "error", "cancelled"])
@pytest.mark.parametrize("what", ["store", "scheduler"])
async def test_no_thread_is_left_behind(tmp_path, what, how):
    async def executor(ctx: JobContext) -> None:
        pass

    before = storage_threads()
    file = tmp_path / "agent.db"
    try:
        with trio.move_on_after(20) as scope:
            async with open_store(file) if what == "store" else open_scheduler(file, executor):
                assert len(storage_threads()) == len(before) + 1
                if how == "error":
                    raise ZeroDivisionError
                if how == "cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
    except ZeroDivisionError:
        assert how == "error"
    assert storage_threads() == before
    assert scope.cancelled_caught == (how == "cancelled")


# Heartbeats


async def test_heartbeats_are_given_while_there_is_nothing_to_do(often):
    heartbeat = Heartbeat()
    async with storage_thread() as thread:
        thread.heartbeat = heartbeat
        await heartbeat.reach(3)
        assert heartbeat.threads == {await thread(threading.get_ident)}


async def test_heartbeats_are_given_while_there_is_always_something_to_do(often):
    heartbeat = Heartbeat()
    async with storage_thread() as thread:
        thread.heartbeat = heartbeat

        async def busy() -> None:
            while True:
                await thread(lambda: None)
                await trio.lowlevel.checkpoint_if_cancelled()  # a hop is none

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(busy)
            await heartbeat.reach(3)
            nursery.cancel_scope.cancel()


async def test_heartbeats_are_given_while_the_loop_is_blocked(often):
    heartbeat = Heartbeat()
    async with storage_thread() as thread:
        thread.heartbeat = heartbeat
        await heartbeat.reach(1)
        seen = heartbeat.count
        until = time.monotonic() + 20
        while heartbeat.count < seen + 3 and time.monotonic() < until:
            time.sleep(0.005)  # blocks the event loop
        assert heartbeat.count >= seen + 3


async def test_heartbeats_are_given_no_more_often_than_every_keep_every(monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_EVERY", 3_600_000)
    heartbeat = Heartbeat()
    async with storage_thread() as thread:
        thread.heartbeat = heartbeat
        for _ in range(100):
            await thread(lambda: None)
    assert heartbeat.count == 0


async def test_a_thread_without_heartbeats_works(often):
    async with storage_thread() as thread:
        await trio.sleep(0.06)  # real time: three times the pause
        assert await thread(lambda: "alive") == "alive"


async def test_an_exception_of_a_heartbeat_does_not_end_the_thread(often):
    heartbeat = Heartbeat()

    def fail() -> None:
        heartbeat()
        raise ZeroDivisionError

    thread = StorageThread()
    thread.heartbeat = fail
    thread.start()
    try:
        await heartbeat.reach(1)
        with trio.move_on_after(1):
            await heartbeat.reach(2)
        assert heartbeat.count >= 2
    finally:
        if storage_threads():
            await thread.stop()


# Handlers of the log that raise


class BrokenSink(logging.Handler):
    """A handler that raises, as one does whose disk is full, or that calls trio from this thread."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
        self.calls = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.calls += 1
        raise self.error


@pytest.fixture(params=[RuntimeError("the sink is gone"), SystemExit(1)], ids=["error", "exit"])
def broken_sink(request: pytest.FixtureRequest) -> Iterator[BrokenSink]:
    sink = BrokenSink(request.param)
    logging.getLogger("cronactors").addHandler(sink)
    yield sink
    logging.getLogger("cronactors").removeHandler(sink)


async def test_a_log_handler_that_raises_does_not_end_the_thread(often, broken_sink):
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise broken_sink.error

    thread = StorageThread()
    thread.heartbeat = fail
    thread.start()
    try:
        assert failed.wait(20)
        while not broken_sink.calls:
            await trio.sleep(0.005)
        await trio.sleep(0.02)  # real time, in which the thread would end
        assert storage_threads()
        assert await thread(lambda: 1) == 1
    finally:
        if storage_threads():
            await thread.stop()


async def test_a_log_handler_that_raises_on_a_blocked_loop_ends_neither_thread_nor_loop(monkeypatch, broken_sink):
    monkeypatch.setattr(watchdog, "RESPONSE_LIMIT", 0.02)
    thread = StorageThread()
    thread.start()
    try:
        until = time.monotonic() + 20
        while not broken_sink.calls and time.monotonic() < until:
            time.sleep(0.005)  # blocks the event loop
        time.sleep(0.05)
        assert broken_sink.calls == 1, "logged once"
        assert storage_threads()
        assert await thread(lambda: 1) == 1
        await trio.sleep(0.05)  # the loop responds
        assert broken_sink.calls == 2, "and once that the loop responds again"
        assert await thread(lambda: 1) == 1
    finally:
        if storage_threads():
            await thread.stop()


async def test_in_place_calls_at_once_and_cannot_be_cancelled():
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await in_place(threading.get_ident) == threading.get_ident()
