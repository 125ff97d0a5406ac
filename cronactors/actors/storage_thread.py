"""The storage's own thread. It calls one function at a time; in between it gives heartbeats and watches the event loop.

We start a thread of our own instead of calling `trio.to_thread.run_sync`, because it hands functions and results over faster, and
because its heartbeats keep our leases while the event loop is blocked.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol, TypeVar

import outcome
import trio

from cronactors.actors.watchdog import Watchdog
from cronactors.ledger import leases

logger = logging.getLogger("cronactors.store")

T = TypeVar("T")

HEARTBEAT_RETRY = 0.5
"""How long (s) until a heartbeat that failed is tried again."""


class Hop(Protocol):
    """Calls a function where the storage may be used, and returns its result. It cannot be cancelled."""

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Call ``function`` there."""
        ...


async def in_place(function: Callable[[], T], /) -> T:
    """Call the function in the event loop itself: on virtual time, which must not pass meanwhile."""
    await trio.lowlevel.cancel_shielded_checkpoint()
    return function()


class StorageThread:
    """A thread that calls one function at a time, in the order of the calls.

    Attributes:
        heartbeat: Called at least every `leases.HEARTBEAT_EVERY`, whether or not there are functions to call. It returns False if
            it failed.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._watchdog = Watchdog()
        self._thread = threading.Thread(target=self._loop, name="cronactors-storage", daemon=True)
        self.heartbeat: Callable[[], bool] | None = None

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Call the function on the thread, and return its result or raise its exception.

        It cannot be cancelled, and is no checkpoint.
        """
        task = trio.lowlevel.current_task()
        token = trio.lowlevel.current_trio_token()

        def carry_out() -> None:
            result = outcome.capture(function)
            with suppress(trio.RunFinishedError):  # trio.run has ended, and so has the task
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        self._work.put(carry_out)
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Wait until all functions have been called and the thread has ended. It cannot be cancelled."""
        await self(lambda: None)
        self._work.put(None)
        self._thread.join()  # at once: it only has to return

    def _loop(self) -> None:
        next_heartbeat = time.monotonic() + leases.HEARTBEAT_EVERY / 1000
        while True:
            try:
                work = self._work.get(timeout=max(0.0, min(next_heartbeat, self._watchdog.next_check) - time.monotonic()))
                if work is None:
                    return
                self._watchdog.note_activity()
                work()
            except queue.Empty:
                self._watchdog.check()
            if time.monotonic() >= next_heartbeat:
                pause = leases.HEARTBEAT_EVERY / 1000 if self._give_heartbeat() else HEARTBEAT_RETRY
                next_heartbeat = time.monotonic() + pause

    def _give_heartbeat(self) -> bool:
        try:
            return self.heartbeat is None or self.heartbeat()
        except BaseException:  # nothing but `stop` may end the thread: tasks that wait for it cannot even be cancelled
            with suppress(BaseException):  # of a handler of the log
                logger.exception("heartbeat failed")
            return False


@asynccontextmanager
async def storage_thread() -> AsyncIterator[StorageThread]:
    """Run a storage thread for the length of a block."""
    thread = StorageThread()
    thread.start()
    try:
        yield thread
    finally:
        await thread.stop()
