"""The exceptions that leave `open_scheduler` and `open_store`.

Three parties can fail inside such a block: the user's body, our actors, and tasks that the user has started in one of our
nurseries. trio would wrap all of them in exception groups. Users expect `except ValueError` around the block to catch the
ValueError of their body, and a bug of ours to look different from a bug of theirs. So actors mark their bugs (`actor`), the body
keeps its exception out of our nurseries (`Body`), and `BlockExit` decides at the end, in one place, which exception is raised.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

import trio

from cronactors.actors.exception_groups import find_exit, single_exceptions, split_cancelled
from cronactors.actors.forks import end_child, generation
from cronactors.errors import CronError, SchedulerCrashed, StoreCorrupt

P = ParamSpec("P")
T = TypeVar("T")


def guarded_contextmanager(function: Callable[P, AsyncGenerator[T]]) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Make an async context manager of a generator function, as `asynccontextmanager` does, but protected from Ctrl-C and forks.

    A KeyboardInterrupt is raised only at checkpoints of the manager; the user's body is not protected. A child that the body
    forks ends where it leaves the block, see `forks`.
    """
    make = asynccontextmanager(trio.lowlevel.enable_ki_protection(function))

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _GuardedContext(make(*args, **kwargs))

    return wrapper


class _GuardedContext(AbstractAsyncContextManager[T]):
    """Wraps the manager that contextlib makes, whose frames are not protected: Ctrl-C in one would break the nurseries."""

    def __init__(self, inner: AbstractAsyncContextManager[T]) -> None:
        self._inner = inner
        self._generation: int | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T:
        # Not earlier: a server may make the manager, fork its workers, and enter it in one of them.
        self._generation = generation()
        return await self._inner.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if generation() != self._generation:
            end_child(_error_of_child(error))
        return await self._inner.__aexit__(kind, error, trace)


def actor(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Decorate a function that runs as one of our tasks, or that starts and ends them.

    A bug in it is raised as `SchedulerCrashed`, with the bug as ``__cause__``. So any other exception from one of our nurseries
    belongs to a task that a user has started there, and is raised as itself. A KeyboardInterrupt is raised only at checkpoints.
    """
    protected = trio.lowlevel.enable_ki_protection(function)

    @wraps(function)
    @trio.lowlevel.enable_ki_protection
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await protected(*args, **kwargs)
        except BaseException as error:
            crash = split_cancelled(error)[1]
            parts = [] if crash is None else list(single_exceptions(crash))
            if not parts or any(isinstance(part, CronError | KeyboardInterrupt | SystemExit) for part in parts):
                raise
            crashed = SchedulerCrashed(f"a bug ended an actor: {type(parts[0]).__name__}; please report it")
            raise crashed from (parts[0] if len(parts) == 1 else crash)

    return run


def _error_of_child(error: BaseException | None) -> BaseException | None:
    """Return the exception with which a forked child ends that leaves a block.

    If the child is cancelled, the cause is outside of the block and unknown here, so it exits with a message.
    """
    if error is None:
        return None
    if isinstance(error, trio.Cancelled):
        return SystemExit("cronactors: a forked child was cancelled in a block of its parent, and ends here")
    return find_exit(error) or error


class Body:
    """Keeps the exception of the user's body, so that no nursery wraps it.

    Attributes:
        error: The exception of the body, a cancellation included; None if it ended normally or by `cancel`.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._scope = trio.CancelScope()

    def __enter__(self) -> None:
        """Enter the scope that `cancel` cancels."""
        self._scope.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Keep the exception of the body, unless it comes from `cancel`."""
        try:
            if not self._scope.__exit__(kind, error, trace):
                self.error = error
        except BaseException as rest:  # noqa: BLE001 - a group, without the cancellations of our own scope
            self.error = rest
        return True

    def cancel(self) -> None:
        """Cancel the body; the caller raises the reason instead."""
        self._scope.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether the body was cancelled from outside."""
        return self.error is not None and split_cancelled(self.error)[0] is not None


class BlockExit:
    """Catches every exception of a block, and decides which one is raised at its end.

    These are raised as themselves: an exception of the body, a `CronError`, a KeyboardInterrupt or SystemExit of a callback, and
    an exception of a task that a user has started in one of our nurseries. A bug in an actor is raised as `SchedulerCrashed`. Two
    of them are raised as a group, unless they are the same failure.

    Attributes:
        body: Wraps the user's body.
    """

    def __init__(self) -> None:
        self.body = Body()
        self._escaped: BaseException | None = None
        self._error: BaseException | None = None

    def escape(self, error: BaseException) -> None:
        """End the block because a callback has raised KeyboardInterrupt or SystemExit; `raise_errors` raises it at the end."""
        if self._escaped is None:
            self._escaped = error
        self.body.cancel()

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Keep the exception for `raise_errors`: raised from here, its context would show the exceptions inside our actors."""
        self._error = error
        return True

    def raise_errors(self) -> None:
        """Raise the exception that leaves the block, if there is one. To be called after the block has ended."""
        crash = None if self._error is None else split_cancelled(self._error)[1]
        unwrapped = None if crash is None else _unwrap(crash)
        reasons = [reason for reason in (self._body_error(), self._escaped, unwrapped) if reason is not None]
        if len(reasons) > 1 and not _same_failure(reasons):
            raise BaseExceptionGroup("the block and the scheduler have both failed", reasons)
        if reasons:
            raise reasons[-1] if isinstance(reasons[-1], SchedulerCrashed) else reasons[0]
        cancelled = self.body.error or self._error
        if cancelled is not None:
            raise cancelled

    def _body_error(self) -> BaseException | None:
        """Return the exception of the body, unless it is only a cancellation."""
        if self.body.error is None or split_cancelled(self.body.error)[1] is None:
            return None
        return self.body.error


def _same_failure(reasons: list[BaseException]) -> bool:
    """Whether all of them are one crash, one damaged file, or Ctrl-C pressed twice: the body often meets the failure too."""
    kinds = {type(leaf) for reason in reasons for leaf in single_exceptions(reason)} - {trio.Cancelled}
    return kinds in ({SchedulerCrashed}, {StoreCorrupt}, {KeyboardInterrupt})


def _unwrap(crash: BaseException) -> BaseException:
    """Take the exception for users out of the group from our nurseries: an error of ours or an exit first, else the only leaf."""
    parts = list(single_exceptions(crash))
    for part in parts:
        if isinstance(part, CronError | KeyboardInterrupt | SystemExit):
            return part
    return parts[0] if len(parts) == 1 else crash
