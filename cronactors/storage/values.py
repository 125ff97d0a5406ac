"""Values and rows of SQL statements, as all storages in SQL take and return them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Value: TypeAlias = str | int | float | None
Row: TypeAlias = Sequence[Value]


def integer(value: Value) -> int:
    """Return the value of a column of whole numbers."""
    assert isinstance(value, int)
    return value
