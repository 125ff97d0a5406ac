"""Calling what users gave us: their exceptions become values, a cancellation from outside goes on as itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar, TypeVarTuple

import outcome
import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

inside_callback: ContextVar[str | None] = ContextVar("inside_callback", default=None)
"""In an executor or a notifier, and in the tasks that it starts: which one. Waiting for a run there could wait for ever."""


@trio.lowlevel.disable_ki_protection
async def _unprotected(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    return await function(*args)


async def call(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> outcome.Outcome[T]:
    """Call a user's function and catch whatever it raises, KeyboardInterrupt and SystemExit too.

    Only a cancellation by a scope around us is raised. What else was in a group with it came of the ending and is dropped; a
    Cancelled that no scope asked for is the function's own doing, and caught.
    """
    try:
        return outcome.Value(await _unprotected(function, *args))
    except trio.Cancelled as cancelled:
        if trio.current_effective_deadline() > trio.current_time():
            return outcome.Error(cancelled)
        raise
    except BaseExceptionGroup as group:
        asked, _ = group.split(trio.Cancelled)
        if asked is not None and trio.current_effective_deadline() <= trio.current_time():
            raise asked from None
        return outcome.Error(group)
    except BaseException as error:  # noqa: BLE001 - the caller decides what it means
        return outcome.Error(error)


def escaping(error: BaseException) -> BaseException | None:
    """The KeyboardInterrupt or SystemExit in an error, alone or in a group: it is meant for the whole program."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(escaping, error.exceptions)), None)
    return None


def describe(error: BaseException) -> str:
    """An error as the history shows it: its type and text, of a group those of its parts; never raises."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(part) for part in error.exceptions[:10])
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a user's exception may do anything
        text = "(its text cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
