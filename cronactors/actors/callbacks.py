"""Calling what users gave us: their exceptions become values, a cancellation from outside goes on as itself."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from itertools import islice
from typing import TypeVar, TypeVarTuple

import outcome
import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MOST_PARTS = 100_000

inside_callback: ContextVar[str | None] = ContextVar("inside_callback", default=None)
"""In an executor or a notifier, and in the tasks that it starts: which one. Waiting for a run there could wait for ever."""


@trio.lowlevel.disable_ki_protection
async def _unprotected(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    awaitable = function(*args)
    if not isinstance(awaitable, Awaitable):  # no type checker was asked
        raise TypeError(f"it must be an async function, but it returned {type(awaitable).__name__}, which cannot be awaited")
    return await awaitable


async def call(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> outcome.Outcome[T]:
    """Call a user's function and catch whatever it raises, KeyboardInterrupt and SystemExit too.

    Only a cancellation by a scope around us is raised. What else was in a group with it came of the ending and is dropped, unless it
    is meant for the whole program; a Cancelled that no scope asked for is the function's own doing, and caught.
    """
    try:
        return outcome.Value(await _unprotected(function, *args))
    except trio.Cancelled as cancelled:
        if _asked_for(cancelled):
            raise
        return outcome.Error(cancelled)
    except BaseExceptionGroup as group:
        if _asked_for(group) and escaping(group) is None:
            asked, _ = group.split(trio.Cancelled)
            assert asked is not None
            raise asked from None
        return outcome.Error(group)
    except BaseException as error:  # noqa: BLE001 - the caller decides what it means
        return outcome.Error(error)


def _asked_for(error: BaseException) -> bool:
    """Whether a cancellation is in it, and a scope around us asked for one."""
    return cancelled_from_outside() and any(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


def cancelled_from_outside() -> bool:
    """Whether a scope around us has been cancelled; one whose deadline has just passed has not been yet."""
    return trio.current_effective_deadline() == -math.inf


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, however deep it is nested, or the one that is none; of a monstrous group only the first."""
    waiting = [error]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return
        part = waiting.pop()
        if isinstance(part, BaseExceptionGroup):
            waiting.extend(reversed(part.exceptions))
        else:
            yield part


def escaping(error: BaseException) -> BaseException | None:
    """The KeyboardInterrupt or SystemExit in an error, alone or in a group: it is meant for the whole program."""
    return next((leaf for leaf in leaves(error) if isinstance(leaf, KeyboardInterrupt | SystemExit)), None)


def describe(error: BaseException) -> str:
    """An error as the history shows it: its type and text, of a group those of its first ten parts; never raises."""
    return "; ".join(_describe(leaf) for leaf in islice(leaves(error), 10))


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - a user's exception may do anything, and its text ends no program
        text = "(its text cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
