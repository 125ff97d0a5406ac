"""State that tasks can watch. The one place that imports trio-util, which ships no types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from trio_util import AsyncValue

T = TypeVar("T")


class Observable(Generic[T]):
    """A value that tasks can wait on; see `trio_util.AsyncValue`."""

    def __init__(self, value: T) -> None:
        self._value = AsyncValue(value)

    @property
    def value(self) -> T:
        """The value; setting it wakes those who wait for it."""
        value: T = self._value.value
        return value

    @value.setter
    def value(self, value: T) -> None:
        self._value.value = value

    async def wait_for(self, predicate: Callable[[T], bool]) -> T:
        """Wait until the predicate holds, and answer the value for which it did."""
        value: T = await self._value.wait_value(predicate)
        return value

    async def wait_change(self) -> None:
        """Wait until the value changes."""
        await self._value.wait_transition()
