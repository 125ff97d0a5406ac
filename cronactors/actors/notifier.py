"""The notifier actor: calls the user's ``notifier`` and ``on_finish`` for each finished run, in order, one call at a time.

Its queue is bounded without dropping anything: while it is full, no run is claimed, so that at most `CAPACITY` finished runs and
one for each slot wait. The calls share a `Sandbox`, since a nursery for each would cost more than all the rest of a run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import attrs
import outcome
import trio

from cronactors import log_fields
from cronactors.actors.async_value import AsyncValue
from cronactors.actors.exception_groups import find_exit
from cronactors.actors.exits import actor
from cronactors.actors.tracebacks import describe, stack_of
from cronactors.actors.user_code import Sandbox, inside_user_code
from cronactors.errors import one_line
from cronactors.ledger.views import run_view
from cronactors.model import Cause, CronJob, NotificationSender, RunObserver, RunStatus
from cronactors.storage.rows import RunRow

logger = logging.getLogger("cronactors.notifier")

CAPACITY = 1_000
"""How many finished runs may wait for the notifier before no more runs are claimed."""
CALL_LIMIT = 30.0
"""How long (s) one call may take."""
STUCK_AFTER = 5.0
"""How long (s) after its cancellation a call that is still running is reported."""
TEXT_LIMIT = 500
"""How many characters of a result a ``notifier`` gets."""

_RUNS_A_TURN = 20

_Function: TypeAlias = Callable[[], Awaitable[None]]


@attrs.frozen
class _Notification:
    """A finished run that is durable, and its job if there is an ``on_finish``."""

    run: RunRow
    job: CronJob | None


@attrs.define(eq=False)
class _Call:
    """One call of a user's function for a run.

    Attributes:
        run: The finished run.
        name: ``notifier`` or ``on_finish``.
        function: The function, with its arguments.
        scope: The watch cancels it if the call takes too long.
        check_at: When the watch checks the call next, on trio's clock: to cancel it, and then to report it.
        is_cancelled: The call has been cancelled, because it took too long or because the notifier was closed.
        result: What the function returned or raised; None: it was cancelled, or is still running.
    """

    run: RunRow
    name: str
    function: _Function
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    check_at: float = math.inf
    is_cancelled: bool = False
    result: outcome.Maybe[None] | None = None


class Notifier:
    """Calls ``notifier`` and ``on_finish``.

    Args:
        notifier: Called with job name, session id, text and success.
        on_finish: Called with the job and the run.
        escape: Called with a KeyboardInterrupt or SystemExit that one of them raised: it ends the program.

    Attributes:
        pending: For how many runs, finished or being finished, the calls have not returned yet.
        is_idle: Whether there is none.
        has_room: Whether more runs may be claimed.
    """

    def __init__(
        self, notifier: NotificationSender | None, on_finish: RunObserver | None, escape: Callable[[BaseException], None]
    ) -> None:
        self._notifier = notifier
        self._on_finish = on_finish
        self._escape = escape
        self._send, self._receive = trio.open_memory_channel[_Notification](math.inf)  # bounded by `has_room`
        self._scope = trio.CancelScope(shield=True)
        self._calls: list[_Call] = []  # the calls that are left for the current run
        self._calling: _Call | None = None
        self._turn = 0
        self._alarm = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None
        self._is_drained = False
        self._ended = trio.Event()
        self.pending = 0
        self.is_idle = AsyncValue(True)
        self.has_room = AsyncValue(True)

    @property
    def listens(self) -> bool:
        """Whether there is a function to call."""
        return self._notifier is not None or self._on_finish is not None

    @property
    def shows_jobs(self) -> bool:
        """Whether the user's functions get the job too."""
        return self._on_finish is not None

    def wants(self, run: RunRow) -> bool:
        """Whether the user's functions are called for such a run: not for a skipped or an interrupted one."""
        return self.listens and run.status != RunStatus.SKIPPED and run.cause != Cause.INTERRUPTED

    # Called by the runners

    def expect(self) -> None:
        """Count a run before it is finished, so that all runs of one transaction see the same room."""
        self.pending += 1
        if self.pending == 1:
            self.is_idle.value = False
        if self.pending == CAPACITY:
            self.has_room.value = False

    def expect_one_less(self) -> None:
        """Stop counting a run: its calls have returned, or it needs none."""
        self.pending -= 1
        if self.pending == 0:
            self.is_idle.value = True
        if self.pending == CAPACITY - 1:
            self.has_room.value = True

    def notify(self, run: RunRow, job: CronJob | None) -> None:
        """Put a finished run, which was expected, into the queue. After the end of the notifier it is dropped, with a warning."""
        try:
            self._send.send_nowait(_Notification(run, job))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.expect_one_less()
            logger.warning("no notification of run %s: the notifier has ended", run.id, extra=log_fields.of_run(run))

    # Stopping

    async def drain(self, until: float) -> None:
        """Let the calls for all that is queued return, until a time of trio's clock at most."""
        self._send.close()
        with trio.move_on_at(until):
            await self._ended.wait()
        if self.pending:
            logger.warning("notifications of %d runs dropped at shutdown", self.pending)

    def close(self) -> None:
        """End at once: cancel the call, drop what is queued."""
        self._scope.cancel()
        self._send.close()
        if self._calling is not None and not self._calling.is_cancelled:
            self._calling.is_cancelled = True
            self._calling.check_at = self._alarm.deadline = trio.current_time() + STUCK_AFTER

    # The actor

    @actor
    async def run(self) -> None:
        """Call until drained or closed. Shielded: runs that finish while everything is being cancelled still find it."""
        inside_user_code.set("a notifier")
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch)
                    with self._scope, self._receive:
                        while not self._is_drained:
                            sandbox = Sandbox()
                            call = await sandbox.run(self._make_calls)
                            self._after_sandbox(sandbox, call)
                    nursery.cancel_scope.cancel()
        finally:
            self._ended.set()

    async def _make_calls(self, sandbox: Sandbox) -> _Call | None:
        """Make one call after another. Return the one that left something behind in the sandbox; None once drained."""
        self._task = trio.lowlevel.current_task()
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            if not self._calls:
                try:
                    self._calls = self._calls_for(await self._next())
                except trio.EndOfChannel:
                    self._is_drained = True
                    return None
            call = self._calls.pop(0)
            await self._make(call, sandbox)
            if sandbox.is_spent():
                self._task = sandbox.visible_task
                return call
            self._returned(call)

    async def _next(self) -> _Notification:
        """Wait for a finished run.

        A wait in trio costs 7 us even if there is one already; so only every `_RUNS_A_TURN`-th does, that other tasks get a turn.
        """
        self._turn += 1
        if self._turn % _RUNS_A_TURN:
            with suppress(trio.WouldBlock):
                return self._receive.receive_nowait()
        return await self._receive.receive()

    def _calls_for(self, finished: _Notification) -> list[_Call]:
        calls = []
        if self._notifier is not None:
            calls.append(_Call(finished.run, "notifier", partial(self._notifier, *notification(finished.run))))
        if self._on_finish is not None and finished.job is not None:
            calls.append(_Call(finished.run, "on_finish", partial(self._on_finish, finished.job, run_view(finished.run))))
        return calls

    async def _make(self, call: _Call, sandbox: Sandbox) -> None:
        call.check_at = trio.current_time() + CALL_LIMIT
        self._calling = call
        if self._alarm.deadline == math.inf:  # else the watch wakes earlier, for a call that has returned, and checks this one
            self._alarm.deadline = call.check_at
        call.result = await sandbox.call(call.scope, call.function)

    def _after_sandbox(self, sandbox: Sandbox, call: _Call | None) -> None:
        """Record the call for which a sandbox was thrown away. An exception of tasks that the function left behind counts as its own."""
        if call is not None:
            if sandbox.stray_error is not None:
                call.result = outcome.Error(sandbox.stray_error)
            self._returned(call)
        elif sandbox.stray_error is not None:
            logger.warning("a task that a notifier left in its nursery failed: %s", one_line(describe(sandbox.stray_error)))
            self._let_escape(sandbox.stray_error)

    def _returned(self, call: _Call) -> None:
        """Note that a call has returned. After the last call of a run, stop counting the run."""
        self._calling = None
        if not isinstance(call.result, outcome.Value):
            self._log(call)
        if not self._calls:
            self.expect_one_less()

    def _log(self, call: _Call) -> None:
        """Log why a call did not return."""
        fields = log_fields.of_run(call.run)
        match call.result:
            case None if call.scope.cancel_called:
                logger.warning(
                    "%s took longer than %.0f s for run %s and was cancelled", call.name, CALL_LIMIT, call.run.id, extra=fields
                )
            case None:
                logger.warning("%s was cancelled before it returned for run %s", call.name, call.run.id, extra=fields)
            case outcome.Error(error):
                logger.warning("%s failed for run %s: %s", call.name, call.run.id, one_line(describe(error)), extra=fields)
                self._let_escape(error)

    def _let_escape(self, error: BaseException) -> None:
        """Let a KeyboardInterrupt or SystemExit in an error end the program."""
        escaped = find_exit(error)
        if escaped is not None:
            self._escape(escaped)

    @trio.lowlevel.enable_ki_protection
    async def _watch(self) -> None:
        """Cancel a call that takes too long. Report one that is still running afterwards, once, with its stack.

        A deadline for each call would cost it 5 us. So there is one alarm, which is not stopped when a call returns: it wakes us,
        and we check the call that is running by then.
        """
        while True:
            with self._alarm:
                await trio.sleep_forever()
            self._alarm = trio.CancelScope()
            call = self._calling
            if call is None:
                continue
            now = trio.current_time()
            if now < call.check_at:
                self._alarm.deadline = call.check_at
            elif not call.is_cancelled:
                call.is_cancelled = True
                call.scope.cancel()
                self._alarm.deadline = call.check_at = now + STUCK_AFTER
            elif self._task is not None:
                logger.error(
                    "%s is still running for run %s %.0f s after it was cancelled. It is at:\n%s",
                    call.name,
                    call.run.id,
                    STUCK_AFTER,
                    stack_of(self._task),
                    extra=log_fields.of_run(call.run),
                )


def notification(run: RunRow) -> tuple[str, str, str, bool]:
    """Return the arguments of a ``notifier``: job name, session id ("" on failure), text of at most 500 characters, success."""
    if run.status == RunStatus.SUCCESS:
        return run.job_name, run.session_id, (run.result or "")[:TEXT_LIMIT], True
    return run.job_name, "", (run.error or run.cause or "")[:TEXT_LIMIT], False
