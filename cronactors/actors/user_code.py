"""Calling functions of users: executors and receivers. Whatever they raise becomes a value, whatever they leave behind ends.

A user's function can leave more behind than an exception. It may start tasks in the nursery around its task, open a nursery or a
cancel scope that it never closes, or cancel that nursery; all of it is reached through `trio.lowlevel`. If we opened a nursery
for each call, everything would end with the nursery; but that costs 33 us of the some 55 us that a run takes
(docs/performance.md). So a `Sandbox`, a nursery with one task, is shared by call after call, and thrown away as soon as a
function leaves something behind.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar, TypeVarTuple

import outcome
import trio

from cronactors.actors.exception_groups import find_exit, single_exceptions, split_cancelled
from cronactors.actors.forks import end_child, generation

T = TypeVar("T")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_POLL = 0.1  # (s) how often we check whether tasks that were left behind have ended

inside_user_code: ContextVar[str | None] = ContextVar("inside_user_code", default=None)
"""Which kind of user code this task runs, "a run" or "a receiver"; None outside. Waiting for a run in there could wait for ever."""


class Sandbox:
    """A nursery with one task, the *work*, in which functions of users are called one after another.

    The work is code of this package: a loop around `call`. After each call it checks `is_spent`. If a function has left something
    behind, the work returns at once, without another checkpoint: a generator that holds an open nursery could otherwise be closed
    first by trio's garbage collection hooks, in a task of trio's own, which would wait for ever. Then `run` cancels what was
    left, waits until it has ended, and the caller opens the next sandbox.

    Attributes:
        stray_error: The exception with which tasks that a function started in the nursery ended it, if any did.
        was_cancelled: A function, or one of those tasks, had cancelled the nursery before the work returned.
    """

    _nursery: trio.Nursery
    _task: trio.lowlevel.Task

    def __init__(self) -> None:
        self.stray_error: BaseException | None = None
        self.was_cancelled = False
        self._abandoned: list[trio.Nursery] = []
        self._bug: BaseException | None = None

    async def run(self, work: Callable[[Sandbox], Awaitable[R]]) -> R | None:
        """Run the work in a task of its own until it returns and nothing that was called in it is still running.

        Returns:
            What the work returned; None if a function cancelled the nursery while the work was not inside a call.

        Raises:
            trio.Cancelled: A scope around us was cancelled, and the work did not return a value.
            Exception: A bug in the work itself.
        """
        results: list[R] = []
        cancelled: BaseException | None = None
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._work, work, results)
        except BaseException as error:  # noqa: BLE001 - sorted into our cancellation and exceptions of stray tasks
            cancelled, self.stray_error = split_cancelled(error)
        if self._abandoned:
            self.stray_error = None  # trio's complaint about the nursery that was left open, which the call reports better
            await _wait_until_ended(self._abandoned)
        if self._bug is not None:
            raise self._bug
        if results:
            return results[0]
        if cancelled is not None and self.stray_error is None:
            raise cancelled
        return None  # if we have been cancelled too, the next checkpoint raises it

    @trio.lowlevel.enable_ki_protection
    async def _work(self, work: Callable[[Sandbox], Awaitable[R]], results: list[R]) -> None:
        self._task = trio.lowlevel.current_task()
        try:
            results.append(await work(self))
        except trio.Cancelled:
            raise
        except BaseException as bug:  # noqa: BLE001 - raised by `run`; as a child's exception it would look like a stray task's
            self._bug = bug
        self._abandoned = list(self._task.child_nurseries)
        self.was_cancelled = self.is_cancelled()
        self._nursery.cancel_scope.cancel()

    async def call(self, scope: trio.CancelScope, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> outcome.Maybe[T] | None:
        """Call a function of a user inside a scope. Only for the work.

        Context variables that the function sets are undone.

        Args:
            scope: Put around the call; its deadline is the timeout.
            function: An async function; what else it is becomes a TypeError.
            args: Its arguments.

        Returns:
            What it returned or raised, KeyboardInterrupt and SystemExit too; None if it was cancelled by the scope or from
            outside.
        """
        task = trio.lowlevel.current_task()
        context = task.context.copy()
        result: outcome.Maybe[T] | None = None
        try:
            with scope:
                result = await _call(function, *args)
        except RuntimeError as misnested:  # trio's complaint about a scope or a nursery that the function left open
            result = result if isinstance(result, outcome.Error) else outcome.Error(misnested)
        task.context = context
        return result

    def is_cancelled(self) -> bool:
        """Whether a function, or an exception of a task that it started, has cancelled the nursery."""
        return self._nursery.cancel_scope.cancel_called

    def is_spent(self) -> bool:
        """Whether a function has left something behind, so that the work must return at once."""
        return bool(self._task.child_nurseries) or len(self._nursery.child_tasks) > 1 or self.is_cancelled()

    @property
    def visible_task(self) -> trio.lowlevel.Task:
        """The task whose stack shows what a function has left behind."""
        return self._task if self._task.child_nurseries else self._nursery.parent_task


async def _wait_until_ended(abandoned: list[trio.Nursery]) -> None:
    """Wait until the tasks in nurseries that a function left open have ended, however long they take. Shielded."""
    with trio.CancelScope(shield=True):
        while any(nursery.child_tasks for nursery in abandoned):  # noqa: ASYNC110 - a nursery has no event for its end
            await trio.sleep(_POLL)


async def _call(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> outcome.Maybe[T] | None:
    """Call a function and return what it returned or raised; None if it was cancelled by a scope around us.

    What else is in a group with such a cancellation was raised while the function was being cancelled, and is dropped, unless it
    is meant for the whole program. A Cancelled that no cancelled scope explains is an error of the function. A child that the
    function forks ends when the function ends, see `forks`.
    """
    here = generation()
    try:
        value = await _unprotected(function, *args)
        if generation() != here:
            end_child(None)
        return outcome.Value(value)
    except BaseException as error:  # noqa: BLE001 - the caller decides what it means
        if generation() != here:
            end_child(find_exit(error) or error)
        if _was_requested(error) and find_exit(error) is None:
            return None
        return outcome.Error(error)


@trio.lowlevel.disable_ki_protection
async def _unprotected(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    awaitable = function(*args)
    if not isinstance(awaitable, Awaitable):  # possible where no type checker ran
        raise TypeError(f"it must be an async function, but it returned {type(awaitable).__name__}, which cannot be awaited")
    return await awaitable


def _was_requested(error: BaseException) -> bool:
    """Whether an exception holds a cancellation by a scope around us."""
    return cancelled_from_outside() and any(issubclass(type(leaf), trio.Cancelled) for leaf in single_exceptions(error))


def cancelled_from_outside() -> bool:
    """Whether a scope around this task has been cancelled. A deadline that has just passed has not cancelled its scope yet."""
    return trio.current_effective_deadline() == -math.inf
