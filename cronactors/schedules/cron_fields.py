"""The fields of a cron expression: the numbers and names that each can hold, and the items that were written in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

_NO_NAMES: Mapping[str, int] = MappingProxyType({})
_MONTH_NAMES = {
    name: number
    for number, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1)
}
_WEEKDAY_NAMES = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}


@attrs.frozen(eq=False)
class Field:
    """A kind of field: it holds numbers from ``least`` to ``most``, or names for them."""

    name: str
    least: int
    most: int
    names: Mapping[str, int] = _NO_NAMES

    @property
    def highest(self) -> int:
        """The highest number that can be written. It differs from ``most`` for weekdays, where 7 is Sunday, as 0 is."""
        return 7 if self is WEEKDAY else self.most

    @property
    def span(self) -> int:
        """The number of different values."""
        return self.most - self.least + 1


SECOND = Field("second", 0, 59)
MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
MONTH_DAY = Field("day of month", 1, 31)
MONTH = Field("month", 1, 12, _MONTH_NAMES)
WEEKDAY = Field("day of week", 0, 6, _WEEKDAY_NAMES)
FIELDS = (SECOND, MINUTE, HOUR, MONTH_DAY, MONTH, WEEKDAY)
"""All fields in the order of an expression. Expressions of five fields have no second."""


@attrs.frozen
class Item:
    """One item of a field.

    Args:
        field: The field.
        text: The item as it was written.
        numbers: The range that it stands for. A range of weekdays can pass Saturday, such as 5 to 8 for ``fri-mon``. Empty for a
            special day.
        special: A day that depends on the month, in croniter's spelling (see `DayField`), or "".
    """

    field: Field
    text: str
    numbers: range
    special: str = ""

    @property
    def values(self) -> list[int]:
        """The numbers in their order; weekdays are 0 to 6."""
        return [number % 7 for number in self.numbers] if self.field is WEEKDAY else list(self.numbers)


@attrs.frozen
class WrittenField:
    """A field as it was written.

    Args:
        text: The whole field.
        items: Its items, which commas separate; none for ``?``.
    """

    text: str
    items: tuple[Item, ...]

    @property
    def values(self) -> set[int]:
        """The numbers of all items."""
        return {value for item in self.items for value in item.values}

    @property
    def restricted(self) -> bool:
        """Whether the field is anything but a plain ``*`` or ``?``. ``*/2`` is restricted, as in POSIX crontab."""
        return self.text not in ("*", "?")
