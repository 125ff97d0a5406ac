"""The notifier actor: tells the user's callbacks of finished runs, in order, one at a time. Its queue is bounded and drops nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import attrs
import outcome
import trio

from cronactors.actors.async_value import Observable
from cronactors.actors.exits import actor
from cronactors.actors.user_code import call_apart, describe, escaping, inside_callback, stack_of
from cronactors.errors import one_line
from cronactors.ledger.views import run_view
from cronactors.model import Cause, CronJob, NotificationSender, RunObserver, RunStatus
from cronactors.storage.rows import RunRow

Ts = TypeVarTuple("Ts")

logger = logging.getLogger("cronactors.notifier")

CAPACITY = 1_000
"""How many finished runs wait before those that finish next have to."""
CALL_LIMIT = 30.0
"""Seconds that one call may take."""
STUCK_AFTER = 5.0
"""Seconds after which a call that was cancelled and has not ended is reported."""
TEXT_LIMIT = 500
"""How many characters of a result a notifier is told."""


@attrs.frozen
class RunFinished:
    """A run has ended, and the record of it is durable; the job for `Notifier.shows_jobs`."""

    run: RunRow
    job: CronJob | None


class Notifier:
    """Calls ``notifier`` and ``on_finish``.

    Args:
        notifier: Told job name, session id, text and success.
        on_finish: Told the records.
        escape: Given a KeyboardInterrupt or SystemExit that a callback raised.
    """

    def __init__(
        self, notifier: NotificationSender | None, on_finish: RunObserver | None, escape: Callable[[BaseException], None]
    ) -> None:
        self._notifier = notifier
        self._on_finish = on_finish
        self._escape = escape
        # Counted from the end of a run to the end of the calls, so that `drain` misses none.
        self._send, self._receive = trio.open_memory_channel[RunFinished](CAPACITY)
        self._scope = trio.CancelScope(shield=True)
        self._task: trio.lowlevel.Task | None = None
        self._calling: RunRow | None = None
        self._alarm = trio.CancelScope()
        self._ended = trio.Event()
        self.under_way = Observable(0)

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return self._notifier is not None or self._on_finish is not None

    @property
    def shows_jobs(self) -> bool:
        """Whether anybody is told of the job too."""
        return self._on_finish is not None

    def wants(self, run: RunRow) -> bool:
        """Whether anybody is told of such an end: a skipped or interrupted run notifies nobody."""
        return self.listens and run.status != RunStatus.SKIPPED and run.cause != Cause.INTERRUPTED

    def tell_nowait(self, finished: RunFinished) -> None:
        """Put an end into the queue.

        Raises:
            trio.WouldBlock: The queue is full.
        """
        self._send.send_nowait(finished)
        self.under_way.value += 1

    async def tell(self, finished: RunFinished) -> None:
        """Wait for a place in the queue; once the notifier has ended nobody is told any more."""
        self.under_way.value += 1
        try:
            with self._send.clone() as send:  # of its own, so that `drain` cuts nobody off
                await send.send(finished)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.under_way.value -= 1
        except BaseException:
            self.under_way.value -= 1
            raise

    async def drain(self, until: float) -> None:
        """Let everybody be told, until a time of trio's clock at most."""
        self._send.close()
        with trio.move_on_at(until):
            await self._ended.wait()
        if self.under_way.value:
            logger.warning("nobody was told of the end of %d runs", self.under_way.value)

    def close(self) -> None:
        """End at once; what was waiting is told to nobody."""
        self._scope.cancel()
        self._send.close()
        if self._calling is not None:
            self._alarm.deadline = min(self._alarm.deadline, trio.current_time() + STUCK_AFTER)

    @actor
    async def run(self) -> None:
        """Serve until drained or closed. Shielded: runs that end while everything is being cancelled still find it there."""
        inside_callback.set("a notifier")
        self._task = trio.lowlevel.current_task()
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch)
                    with self._scope, self._receive:
                        async for finished in self._receive:
                            await self._tell_of(finished)
                            self.under_way.value -= 1
                    nursery.cancel_scope.cancel()
        finally:
            self._ended.set()

    @trio.lowlevel.enable_ki_protection
    async def _watch(self) -> None:
        """Report a call that does not end although it was cancelled, once, with its stack."""
        while True:
            with self._alarm:
                await trio.sleep_forever()
            self._alarm = trio.CancelScope()
            if self._calling is not None and self._task is not None:
                logger.error(
                    "notifying of run %s goes on %.0f s after it was cancelled. It is at:\n%s",
                    self._calling.id,
                    STUCK_AFTER,
                    stack_of(self._task),
                )

    async def _tell_of(self, finished: RunFinished) -> None:
        if self._notifier is not None:
            await self._call(finished.run, self._notifier, *notification(finished.run))
        if self._on_finish is not None and finished.job is not None:
            await self._call(finished.run, self._on_finish, finished.job, run_view(finished.run))

    async def _call(self, run: RunRow, function: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        result: outcome.Outcome[None] | None = None
        self._calling, self._alarm.deadline = run, trio.current_time() + CALL_LIMIT + STUCK_AFTER
        try:
            with trio.move_on_after(CALL_LIMIT) as limit:
                result = await call_apart(function, *args)
        finally:
            self._calling, self._alarm.deadline = None, math.inf
        if result is None and not limit.cancel_called:
            logger.warning("notifying of run %s was cancelled before it ended", run.id)
        elif result is None:
            logger.warning("notifying of run %s took longer than %.0f s and was cancelled", run.id, CALL_LIMIT)
        elif isinstance(result, outcome.Error):
            logger.warning("notifying of run %s failed: %s", run.id, one_line(describe(result.error)))
            escaping_error = escaping(result.error)
            if escaping_error is not None:
                self._escape(escaping_error)


def notification(run: RunRow) -> tuple[str, str, str, bool]:
    """What a notifier is told of a run: job name, session id ("" on failure), text of at most 500 characters, success."""
    if run.status == RunStatus.SUCCESS:
        return run.job_name, run.session_id, (run.result or "")[:TEXT_LIMIT], True
    return run.job_name, "", (run.error or run.cause or "")[:TEXT_LIMIT], False
