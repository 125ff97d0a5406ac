"""Calls a receiver's function for one notification after another, in one task.

The calls share a `Sandbox`, since a nursery for each would cost more than all the rest of a run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import attrs
import outcome
import trio

from cronactors.actors.exception_groups import find_exit
from cronactors.actors.exits import actor
from cronactors.actors.inbox import Failure, Inbox, fields, subject
from cronactors.actors.tracebacks import describe, stack_of
from cronactors.actors.user_code import Sandbox, inside_user_code
from cronactors.errors import one_line
from cronactors.ledger.notifications import Deliverable
from cronactors.notification_context import delivering
from cronactors.storage.notifications import NotificationRow

logger = logging.getLogger("cronactors.notifier")

STUCK_AFTER = 5.0
"""How long (s) after its cancellation a call that is still running is reported."""

Bind: TypeAlias = Callable[[Deliverable], Callable[[], Awaitable[None]]]
"""Gives a receiver's function its arguments."""


@attrs.define(eq=False)
class _Delivery:
    """One call of a user's function.

    Attributes:
        deliverable: The notification.
        scope: The watch cancels it if the call takes too long.
        check_at: When the watch checks the call next, on trio's clock: to cancel it, and then to report it.
        is_cancelled: The call has been cancelled, because it took too long or because the deliverer was closed.
        result: The result or the exception of the function; None: it was cancelled, or is still running.
    """

    deliverable: Deliverable
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    check_at: float = math.inf
    is_cancelled: bool = False
    result: outcome.Maybe[None] | None = None


class Deliverer:
    """Makes one call at a time. A receiver has as many deliverers as it allows calls at a time.

    Args:
        inbox: Where notifications come from, and results go to.
        bind: Gives the function its arguments.
        escape: Called with a KeyboardInterrupt or SystemExit that a function raised: it ends the program.
    """

    def __init__(self, inbox: Inbox, bind: Bind, escape: Callable[[BaseException], None]) -> None:
        self._inbox = inbox
        self._bind = bind
        self._escape = escape
        self._scope = trio.CancelScope()
        self._is_closed = False
        self._calling: _Delivery | None = None
        self._alarm = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None

    def close(self) -> None:
        """End at once: cancel the call, whose notification stays pending."""
        self._is_closed = True
        self._scope.cancel()
        if self._calling is not None and not self._calling.is_cancelled:
            self._calling.is_cancelled = True
            self._calling.check_at = self._alarm.deadline = trio.current_time() + STUCK_AFTER

    @actor
    async def run(self) -> None:
        """Call until closed."""
        inside_user_code.set("a receiver")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            with self._scope:
                while True:
                    sandbox = Sandbox()
                    call = await sandbox.run(self._make_calls)
                    self._after_sandbox(sandbox, call)
            nursery.cancel_scope.cancel()

    async def _make_calls(self, sandbox: Sandbox) -> _Delivery:
        """Make one call after another. Return the one that left something behind in the sandbox."""
        self._task = trio.lowlevel.current_task()
        while True:
            call = _Delivery(await self._inbox.take())
            await self._make(call, sandbox)
            if sandbox.is_spent():
                self._task = sandbox.visible_task
                return call
            self._returned(call)

    async def _make(self, call: _Delivery, sandbox: Sandbox) -> None:
        deliverable = call.deliverable
        if deliverable.problem is not None:
            return
        call.check_at = trio.current_time() + self._inbox.receiver.timeout
        self._calling = call
        # Else the watch wakes earlier, for a call that has returned, and checks this one.
        if call.check_at < self._alarm.deadline:  # noqa: PLR1730 - to set the same value again costs each call 1 us
            self._alarm.deadline = call.check_at
        self._set_current(deliverable.row)
        call.result = await sandbox.call(call.scope, self._bind(deliverable))

    def _set_current(self, row: NotificationRow) -> None:
        """Set the notification that `current_notification` shows to the function.

        After a call the sandbox gives our task a copy of its context, which trio enters only when the task next waits. So we set
        it in both: in the one in which the function starts, and in the one in which it continues.
        """
        delivering.set(row)
        if self._task is not None:
            with suppress(RuntimeError):  # they are the same
                self._task.context.run(delivering.set, row)

    def _after_sandbox(self, sandbox: Sandbox, call: _Delivery | None) -> None:
        """Record the call for which a sandbox was thrown away. An exception of tasks that the function left behind counts as its own."""
        if call is not None:
            if sandbox.stray_error is not None:
                call.result = outcome.Error(sandbox.stray_error)
            self._returned(call)
        elif sandbox.stray_error is not None:
            failure = one_line(describe(sandbox.stray_error))
            logger.warning("a task that %s left in its nursery failed: %s", self._inbox.name, failure)
            self._let_escape(sandbox.stray_error)

    def _returned(self, call: _Delivery) -> None:
        """Note that a call has returned."""
        self._calling = None
        if isinstance(call.result, outcome.Value):
            self._inbox.returned(call.deliverable, None)
        elif self._was_cut_off(call):
            self._log(call, "%s was cancelled before it returned for %s; it is called again by the next scheduler")
            self._inbox.abandoned()
        else:
            self._inbox.returned(call.deliverable, self._failure(call))

    def _was_cut_off(self, call: _Delivery) -> bool:
        """Whether a call has not returned because the scheduler ends, by Ctrl-C too: that costs no attempt."""
        if isinstance(call.result, outcome.Error):
            return isinstance(self._let_escape(call.result.error), KeyboardInterrupt)
        return self._is_closed and call.deliverable.problem is None

    def _failure(self, call: _Delivery) -> Failure:
        """Log why a call did not return, and return it."""
        name = self._inbox.name
        match call.result:
            case outcome.Error(error):
                text = describe(error)
                self._log(call, f"%s failed for %s{self._attempt(call)}: {one_line(text).replace('%', '%%')}")
                return Failure(text)
            case _ if call.deliverable.problem is not None:
                return Failure(call.deliverable.problem, for_good=True)
            case _ if call.scope.cancel_called:
                timeout = self._inbox.receiver.timeout
                self._log(call, f"%s took longer than {timeout:g} s for %s and was cancelled{self._attempt(call)}")
                return Failure(f"timed out after {timeout:g} s")
            case _:
                self._log(call, f"%s was cancelled before it returned for %s{self._attempt(call)}")
                return Failure(f"{name} was cancelled before it returned")

    def _attempt(self, call: _Delivery) -> str:
        return f" (call {call.deliverable.row.attempts + 1} of {self._inbox.receiver.attempts})"

    def _log(self, call: _Delivery, text: str) -> None:
        logger.warning(text, self._inbox.name, subject(call.deliverable), extra=fields(call.deliverable))

    def _let_escape(self, error: BaseException) -> BaseException | None:
        """Let a KeyboardInterrupt or SystemExit in an error end the program, and return it."""
        escaped = find_exit(error)
        if escaped is not None:
            self._escape(escaped)
        return escaped

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
                    "%s is still running for %s %.0f s after it was cancelled. It is at:\n%s",
                    self._inbox.name,
                    subject(call.deliverable),
                    STUCK_AFTER,
                    stack_of(self._task),
                    extra=fields(call.deliverable),
                )
