"""Exceptions that may be groups: their parts, and which of them are cancellations or meant for the whole program."""

from __future__ import annotations

from collections.abc import Iterator

import trio

_MOST_PARTS = 100_000


def single_exceptions(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, however deep it is nested, or a single exception itself; of a monstrous group only the first.

    Classes are compared with `type`, since ``__class__`` of a user's exception may be a property that raises.
    """
    waiting = [error]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return
        part = waiting.pop()
        if issubclass(type(part), BaseExceptionGroup):
            waiting.extend(reversed(BaseExceptionGroup.exceptions.__get__(part)))
        else:
            yield part


def split_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception into its cancellations and everything else."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    return (error, None) if isinstance(error, trio.Cancelled) else (None, error)


def find_exit(error: BaseException) -> BaseException | None:
    """Find the KeyboardInterrupt or SystemExit in an exception, alone or in a group: it is meant for the whole program."""
    return next((leaf for leaf in single_exceptions(error) if issubclass(type(leaf), KeyboardInterrupt | SystemExit)), None)
