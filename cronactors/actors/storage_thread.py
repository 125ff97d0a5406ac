"""The storage's own thread. A dedicated one hands over faster than `trio.to_thread`, and keeps the lease while the loop is blocked."""

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

KEEP_AGAIN = 0.5
"""Seconds until the next try of ``keep`` after one that failed."""


class Hop(Protocol):
    """Carries a function to where the storage may be used, and its result back. Never cancelled half-way."""

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Call ``function`` there."""
        ...


async def in_place(function: Callable[[], T], /) -> T:
    """Call the function in the loop itself: for virtual time, which must not pass meanwhile."""
    await trio.lowlevel.cancel_shielded_checkpoint()
    return function()


class StorageThread:
    """A thread that carries out one function at a time; in between it carries out ``keep``, and watches the loop."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._watchdog = Watchdog()
        self._thread = threading.Thread(target=self._loop, name="cronactors-storage", daemon=True)
        self.keep: Callable[[], bool] | None = None

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Call the function on the thread."""
        task = trio.lowlevel.current_task()
        token = trio.lowlevel.current_trio_token()

        def carry_out() -> None:
            result = outcome.capture(function)
            with suppress(trio.RunFinishedError):  # the run was torn down around us: nobody waits any more
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        self._work.put(carry_out)
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def stop(self) -> None:
        """Let it finish what it was given, and end; shielded."""
        await self(lambda: None)
        self._work.put(None)
        self._thread.join()  # it has nothing left to do but return

    def _loop(self) -> None:
        next_keep = time.monotonic() + leases.KEEP_EVERY / 1000
        while True:
            try:
                work = self._work.get(timeout=max(0.0, min(next_keep, self._watchdog.next_look) - time.monotonic()))
                if work is None:
                    return
                self._watchdog.heard()
                work()
            except queue.Empty:
                self._watchdog.look()
            if time.monotonic() >= next_keep:
                next_keep = time.monotonic() + (leases.KEEP_EVERY / 1000 if self._kept() else KEEP_AGAIN)

    def _kept(self) -> bool:
        try:
            return self.keep is None or self.keep()
        except BaseException:  # only the sentinel ends the thread: whoever waits for it could not even be cancelled
            with suppress(BaseException):  # where the log fails there is nothing left to tell it to
                logger.exception("leases could not be kept")
            return False


@asynccontextmanager
async def storage_thread() -> AsyncIterator[StorageThread]:
    """A thread for the length of a block."""
    thread = StorageThread()
    thread.start()
    try:
        yield thread
    finally:
        await thread.stop()
