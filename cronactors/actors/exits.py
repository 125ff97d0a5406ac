"""What leaves a block of ours: the one boundary at which exceptions of actors and of the body are told apart."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

import trio

from cronactors.actors.exception_groups import find_exit, leaves, split_cancelled
from cronactors.actors.forks import end_child, generation
from cronactors.errors import CronError, SchedulerCrashed, StoreCorrupt

P = ParamSpec("P")
T = TypeVar("T")


def guarded_contextmanager(function: Callable[P, AsyncGenerator[T]]) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Make an async context manager of a generator, as `asynccontextmanager` does; Ctrl-C waits for a checkpoint in all of it.

    The user's body is not protected.
    """
    make = asynccontextmanager(trio.lowlevel.enable_ki_protection(function))

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _GuardedContext(make(*args, **kwargs))

    return wrapper


class _GuardedContext(AbstractAsyncContextManager[T]):
    """Protects the frames of contextlib too: a KeyboardInterrupt there would tear the nurseries apart.

    A child that the body forks ends where it leaves the block, see `forks`.
    """

    def __init__(self, inner: AbstractAsyncContextManager[T]) -> None:
        self._inner = inner
        self._generation: int | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T:
        self._generation = generation()  # only now: a block may be made before a server forks its workers, and entered in one
        return await self._inner.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if generation() != self._generation:
            end_child(_of_child(error))
        return await self._inner.__aexit__(kind, error, trace)


def actor(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Mark a function that runs as a task of ours, or opens and closes those tasks; Ctrl-C waits for a checkpoint in all of it.

    A bug leaves it as `SchedulerCrashed`, whose ``__cause__`` it is. So any other exception that comes out of a nursery of ours
    belongs to a task that a user has started there, and leaves as itself.
    """
    protected = trio.lowlevel.enable_ki_protection(function)

    @wraps(function)
    @trio.lowlevel.enable_ki_protection
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await protected(*args, **kwargs)
        except BaseException as error:
            crash = split_cancelled(error)[1]
            parts = [] if crash is None else list(leaves(crash))
            if not parts or any(isinstance(part, CronError | KeyboardInterrupt | SystemExit) for part in parts):
                raise
            shown = SchedulerCrashed(f"an actor ended by a bug: {type(parts[0]).__name__}; please report it")
            raise shown from (parts[0] if len(parts) == 1 else crash)

    return run


def _of_child(error: BaseException | None) -> BaseException | None:
    """What ends a forked child that leaves a block; a cancellation says nothing of what raised outside of the block."""
    if error is None:
        return None
    if isinstance(error, trio.Cancelled):
        return SystemExit("cronactors: a forked child was cancelled in a block of its parent, and ends here")
    return find_exit(error) or error


class Body:
    """The user's block, as a context manager: its exception is kept for later, so that no nursery wraps it."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._scope = trio.CancelScope()

    def __enter__(self) -> None:
        """Begin the block."""
        self._scope.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """End the block and keep its exception, unless it comes of `cancel`."""
        try:
            if not self._scope.__exit__(kind, error, trace):
                self.error = error
        except BaseException as rest:  # noqa: BLE001 - what remains of a group without the cancellations that were ours
            self.error = rest
        return True

    def cancel(self) -> None:
        """End the block from within, for a reason that is raised instead."""
        self._scope.cancel()

    @property
    def cancelled(self) -> bool:
        """The block was cancelled from outside."""
        return self.error is not None and split_cancelled(self.error)[0] is not None


class BlockExit:
    """Wraps everything that a block of ours runs, the user's body included, and decides what leaves.

    An exception of the body leaves as itself. So does an error of ours, a KeyboardInterrupt or SystemExit of a callback, and an
    exception of a task that a user has started in a nursery of ours. A bug of an actor leaves as `SchedulerCrashed`, see `actor`. Two
    of them leave as a group.
    """

    def __init__(self) -> None:
        self.body = Body()
        self._escaped: BaseException | None = None
        self._error: BaseException | None = None

    def escape(self, error: BaseException) -> None:
        """Let an exception that a callback raised for the whole program leave, after everything has ended in order."""
        if self._escaped is None:
            self._escaped = error
        self.body.cancel()

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Keep what came out, for `raise_errors`: raised here it would show all that we did as its context."""
        self._error = error
        return True

    def raise_errors(self) -> None:
        """After the end: raise what leaves, if anything does."""
        crash = None if self._error is None else split_cancelled(self._error)[1]
        shown = None if crash is None else _shown(crash)
        reasons = [reason for reason in (self._of_body(), self._escaped, shown) if reason is not None]
        if len(reasons) > 1 and not _tell_the_same(reasons):
            raise BaseExceptionGroup("the block and the scheduler have both failed", reasons)
        if reasons:
            raise reasons[-1] if isinstance(reasons[-1], SchedulerCrashed) else reasons[0]
        cancelled = self.body.error or self._error
        if cancelled is not None:
            raise cancelled

    def _of_body(self) -> BaseException | None:
        """The body's exception, if it is more than a cancellation."""
        if self.body.error is None or split_cancelled(self.body.error)[1] is None:
            return None
        return self.body.error


def _tell_the_same(reasons: list[BaseException]) -> bool:
    """Whether all are one crash or one damage, as the body or its tasks met it and as it left, or one Ctrl-C pressed again."""
    kinds = {type(leaf) for reason in reasons for leaf in leaves(reason)} - {trio.Cancelled}
    return kinds in ({SchedulerCrashed}, {StoreCorrupt}, {KeyboardInterrupt})


def _shown(crash: BaseException) -> BaseException:
    """What users see of an exception that came out of our nurseries."""
    parts = list(leaves(crash))
    for part in parts:
        if isinstance(part, CronError | KeyboardInterrupt | SystemExit):
            return part
    return parts[0] if len(parts) == 1 else crash
