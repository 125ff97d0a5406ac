"""Values that tasks can wait for. The only module that imports trio-util, which ships no types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, TypeVar, overload

import trio_util

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class AsyncValue(Generic[T]):
    """A value that tasks can wait for, with types; see `trio_util.AsyncValue`."""

    def __init__(self, value: T) -> None:
        self._value = trio_util.AsyncValue(value)

    @property
    def value(self) -> T:
        """The value. Setting another one wakes the tasks whose predicate holds for it."""
        value: T = self._value.value
        return value

    @value.setter
    def value(self, value: T) -> None:
        self._value.value = value

    async def wait_value(self, predicate: Callable[[T], bool]) -> T:
        """Wait until the predicate holds, and return the value for which it did; it may have changed again since."""
        value: T = await self._value.wait_value(predicate)
        return value


@overload
def compose(a: AsyncValue[A], b: AsyncValue[B], /) -> AbstractContextManager[AsyncValue[tuple[A, B]]]: ...
@overload
def compose(a: AsyncValue[A], b: AsyncValue[B], c: AsyncValue[C], /) -> AbstractContextManager[AsyncValue[tuple[A, B, C]]]: ...
@overload
def compose(
    a: AsyncValue[A], b: AsyncValue[B], c: AsyncValue[C], d: AsyncValue[D], /
) -> AbstractContextManager[AsyncValue[tuple[A, B, C, D]]]: ...
def compose(*values: AsyncValue[Any]) -> AbstractContextManager[AsyncValue[Any]]:
    """Make one value of several, a tuple, that changes whenever one of them does; see `trio_util.compose_values`."""
    return _compose(values)


@contextmanager
def _compose(values: tuple[AsyncValue[Any], ...]) -> Iterator[AsyncValue[Any]]:
    with trio_util.compose_values(**{f"value_{index}": each._value for index, each in enumerate(values)}) as composed:
        result: AsyncValue[Any] = AsyncValue(None)
        result._value = composed
        yield result
